// Three small processes over a few samples: measure each, summarise each, report on all.

// Bash that sleeps until the task has lasted so many seconds: the work is done by then, the rest is there to be watched.
def pace(seconds) {
    return "sleep \$(( SECONDS < ${seconds} ? ${seconds} - SECONDS : 0 ))"
}

process MEASURE {
    tag "${sample}"

    input:
    tuple val(sample), val(seed)
    val seconds

    output:
    tuple val(sample), path("${sample}.txt")

    // 2000 temperatures from a fixed random sequence: the same seed gives the same sample on every machine.
    script:
    """
    awk -v state=${seed} 'BEGIN {
        for (i = 0; i < 2000; i++) {
            state = (state * 16807) % 2147483647
            print 10 + state % 200 / 10
        }
    }' > ${sample}.txt
    ${pace(seconds)}
    """
}

process SUMMARISE {
    tag "${sample}"
    debug true

    input:
    tuple val(sample), path(readings)
    val seconds

    output:
    path "${sample}.tsv"

    script:
    """
    sort -n ${readings} | awk -v OFS='\\t' -v sample=${sample} '
        { value[NR] = \$1; sum += \$1 }
        END { print sample, NR, value[1], value[int((NR + 1) / 2)], value[NR], sprintf("%.2f", sum / NR) }
    ' > ${sample}.tsv
    awk '{ print "Summarised " \$1 ": " \$2 " readings, mean " \$6 }' ${sample}.tsv
    ${pace(seconds)}
    """
}

process REPORT {
    debug true

    input:
    path rows
    val seconds

    output:
    path 'report.tsv'

    script:
    """
    echo "sample readings min median max mean" | tr ' ' '\\t' > report.tsv
    sort -V ${rows} >> report.tsv
    echo "Report on \$(( \$(wc -l < report.tsv) - 1 )) samples:"
    expand -t 12 report.tsv
    ${pace(seconds)}
    """
}

workflow {
    def fast  = params.fast.toString().toBoolean()
    def count = params.samples as int
    if (count < 1 || count > 50) {
        error "samples: ${count} is not between 1 and 50"
    }
    log.info "simple-pipeline: three processes over ${count} samples"

    MEASURE(channel.of(1..count).map { n -> tuple("sample_${n}", 4242 * n) }, fast ? 1 : 2)
    SUMMARISE(MEASURE.out, fast ? 1 : 3)
    REPORT(SUMMARISE.out.collect(), fast ? 1 : 2)
}
