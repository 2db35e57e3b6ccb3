// An RNA-seq analysis in miniature: made-up reads through quality control, trimming, alignment and counting.
// No bioinformatics tool is needed: each step does in awk, on a small scale, what the real one does.

// Bash that sleeps until the task has lasted so many seconds: the work is done by then, the rest is there to be watched.
def pace(seconds) {
    return "sleep \$(( SECONDS < ${seconds} ? ${seconds} - SECONDS : 0 ))"
}

// Six genes of 600 bases, and reads of 60 whose quality falls, and whose errors grow, towards their end.
// A fixed random sequence (Park-Miller) makes them the same on every machine; 40% of the reads of sample n
// come from gene n, so the report has something to find.
process SIMULATE_READS {
    debug true

    input:
    val samples
    val reads
    val seconds

    output:
    path 'genes.fa', emit: genes
    path 'sample_*.fastq', emit: reads

    script:
    """
    awk -v samples=${samples} -v reads=${reads} '
        function random(n) { state = (state * 16807) % 2147483647; return int(state / 2147483647 * n) }
        function base() { return substr("ACGT", 1 + random(4), 1) }
        BEGIN {
            state = 20240
            for (g = 0; g < 6; g++) {
                for (i = 0; i < 600; i++) gene[g] = gene[g] base()
                print ">gene_" g + 1 > "genes.fa"
                print gene[g] > "genes.fa"
            }
            for (s = 1; s <= samples; s++) {
                file = "sample_" s ".fastq"
                for (r = 1; r <= reads; r++) {
                    g = random(10) < 4 ? (s - 1) % 6 : random(6)
                    start = 1 + random(540)
                    bad = random(10) == 0 ? 12 : random(8)
                    sequence = quality = ""
                    for (i = 0; i < 60; i++) {
                        q = 38 - bad - int(i * i / 200) - random(6)
                        if (q < 2) q = 2
                        wrong = random(100) < (q < 20 ? 15 : 1) / 2
                        sequence = sequence (wrong ? base() : substr(gene[g], start + i, 1))
                        quality = quality sprintf("%c", 33 + q)
                    }
                    print "@sample_" s "." r > file
                    print sequence > file
                    print "+" > file
                    print quality > file
                }
                close(file)
            }
        }'
    echo "Simulated ${reads} reads for each of ${samples} samples, from 6 genes"
    ${pace(seconds)}
    """
}

// Every 20-mer of every gene with its place, for the aligner's first look.
process INDEX {
    debug true

    input:
    path genes
    val seconds

    output:
    path 'index.tsv'

    script:
    """
    awk -v OFS='\\t' '
        /^>/ { gene = substr(\$0, 2); next }
        { for (i = 1; i + 19 <= length(\$0); i++) print substr(\$0, i, 20), gene, i }
    ' ${genes} | sort > index.tsv
    echo "Indexed \$(grep -c '>' ${genes}) genes: \$(wc -l < index.tsv) places"
    ${pace(seconds)}
    """
}

// Mean quality of each base of the reads, and the share of G and C.
process FASTQC {
    tag "${sample}"
    debug true

    input:
    tuple val(sample), path(reads)
    val seconds

    output:
    tuple val(sample), path("${sample}.fastqc.tsv")

    script:
    """
    echo "Running FASTQC on ${sample}"
    awk -v OFS='\\t' -v sample=${sample} '
        BEGIN { for (q = 0; q < 64; q++) value[sprintf("%c", 33 + q)] = q }
        NR % 4 == 2 { reads++; bases += length(\$0); gc += gsub(/[GC]/, "x") }
        NR % 4 == 0 { for (i = 1; i <= length(\$0); i++) { q = value[substr(\$0, i, 1)]; sum[i] += q; total += q } }
        END {
            for (i = 1; i in sum; i++) print i, sprintf("%.1f", sum[i] / reads) > (sample ".fastqc.tsv")
            print "FASTQC " sample ": " reads " reads, mean quality " sprintf("%.1f", total / bases) \\
                ", GC " sprintf("%.1f%%", 100 * gc / bases)
        }
    ' ${reads}
    ${pace(seconds)}
    """
}

// Cuts the bad end off each read, and drops a read of which fewer than 30 bases are left.
process TRIM {
    tag "${sample}"
    debug true

    input:
    tuple val(sample), path(reads)
    val seconds

    output:
    tuple val(sample), path("${sample}.trimmed.fastq")

    script:
    """
    echo "Trimming ${sample} (quality trimming, Q20)"
    awk -v sample=${sample} '
        BEGIN { for (q = 0; q < 64; q++) value[sprintf("%c", 33 + q)] = q; out = sample ".trimmed.fastq" }
        NR % 4 == 1 { name = \$0 }
        NR % 4 == 2 { sequence = \$0 }
        NR % 4 == 0 {
            keep = length(\$0)
            while (keep > 0 && value[substr(\$0, keep, 1)] < 20) keep--
            reads++; bases += length(\$0)
            if (keep < 30) next
            kept++; left += keep
            print name > out
            print substr(sequence, 1, keep) > out
            print "+" > out
            print substr(\$0, 1, keep) > out
        }
        END {
            print "Trimming " sample ": kept " kept " of " reads " reads, cut " \\
                sprintf("%.1f%%", 100 * (1 - left / bases)) " of the bases"
        }
    ' ${reads}
    ${pace(seconds)}
    """
}

// Finds where the first 20 bases of a read stand, then allows 3 differences in the rest.
process ALIGN {
    tag "${sample}"
    debug true

    input:
    tuple val(sample), path(reads)
    path index
    path genes
    val seconds

    output:
    tuple val(sample), path("${sample}.aligned.tsv")

    script:
    """
    echo "Alignment of ${sample} to 6 genes"
    awk -v OFS='\\t' -v sample=${sample} '
        FILENAME == "${index}" { place[\$1] = \$2 " " \$3; next }
        FILENAME == "${genes}" { if (/^>/) name = substr(\$0, 2); else gene[name] = \$0; next }
        FNR % 4 == 1 { read = substr(\$0, 2) }
        FNR % 4 == 2 {
            reads++
            seed = substr(\$0, 1, 20)
            if (!(seed in place)) next
            split(place[seed], hit, " ")
            wrong = 0
            for (i = 21; i <= length(\$0); i++)
                if (substr(\$0, i, 1) != substr(gene[hit[1]], hit[2] + i - 1, 1)) wrong++
            if (wrong > 3) next
            aligned++
            print read, hit[1], hit[2], wrong > (sample ".aligned.tsv")
        }
        END { print "Alignment of " sample ": " aligned " of " reads " reads, " sprintf("%.1f%%", 100 * aligned / reads) }
    ' ${index} ${genes} ${reads}
    ${pace(seconds)}
    """
}

// Reads a gene, the most expressed first.
process QUANTIFY {
    tag "${sample}"
    debug true

    input:
    tuple val(sample), path(aligned)
    val seconds

    output:
    path "${sample}.counts.tsv"

    script:
    """
    cut -f 2 ${aligned} | sort | uniq -c | sort -k1,1nr -k2,2 |
        awk -v OFS='\\t' '{ print "${sample}", \$2, \$1 }' > ${sample}.counts.tsv
    awk 'NR == 1 { print "Counted ${sample}: most reads on " \$2 " (" \$3 ")" }' ${sample}.counts.tsv
    ${pace(seconds)}
    """
}

// One table: a row a gene, a column a sample.
process REPORT {
    debug true

    input:
    path counts
    val seconds

    output:
    path 'expression.tsv'

    script:
    """
    sort -V ${counts} | awk '
        { count[\$2, \$1] = \$3; if (!seen[\$1]++) sample[++samples] = \$1 }
        END {
            row = "gene"
            for (s = 1; s <= samples; s++) row = row "\\t" sample[s]
            print row
            for (g = 1; g <= 6; g++) {
                row = "gene_" g
                for (s = 1; s <= samples; s++) row = row "\\t" count["gene_" g, sample[s]] + 0
                print row
            }
        }' > expression.tsv
    echo "Expression by gene and sample:"
    expand -t 12 expression.tsv
    ${pace(seconds)}
    """
}

workflow {
    def fast    = params.fast.toString().toBoolean()
    def samples = params.samples as int
    if (samples < 1 || samples > 20) {
        error "samples: ${samples} is not between 1 and 20"
    }
    log.info "rnaseq-test: ${samples} samples through FASTQC, trimming, alignment and counting"

    SIMULATE_READS(samples, params.reads as int, fast ? 1 : 8)
    def reads = SIMULATE_READS.out.reads.flatten().map { file -> tuple(file.baseName, file) }
    INDEX(SIMULATE_READS.out.genes, fast ? 1 : 8)
    FASTQC(reads, fast ? 1 : 15)
    TRIM(reads, fast ? 1 : 17)
    ALIGN(TRIM.out, INDEX.out, SIMULATE_READS.out.genes, fast ? 1 : 20)
    QUANTIFY(ALIGN.out, fast ? 1 : 8)
    REPORT(QUANTIFY.out.collect(), fast ? 1 : 8)
}
