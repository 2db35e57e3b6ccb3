// Scatter and gather: the primes below a million, counted by a dozen tasks side by side, then added up.

// Bash that sleeps until the task has lasted so many seconds: the work is done by then, the rest is there to be watched.
def pace(seconds) {
    return "sleep \$(( SECONDS < ${seconds} ? ${seconds} - SECONDS : 0 ))"
}

process SCATTER {
    debug true

    input:
    val limit
    val shards
    val seconds

    output:
    path 'shard_*.txt'

    script:
    """
    awk -v limit=${limit} -v shards=${shards} 'BEGIN {
        for (n = 0; n < shards; n++)
            print int(n * limit / shards), int((n + 1) * limit / shards) > sprintf("shard_%02d.txt", n + 1)
    }'
    echo "Scatter: the numbers below ${limit} in ${shards} shards"
    ${pace(seconds)}
    """
}

process COUNT_PRIMES {
    tag "${range.baseName}"
    debug true

    input:
    path range
    val seconds

    output:
    path "${range.baseName}.tsv"

    // Trial division.
    script:
    """
    read -r from to < ${range}
    awk -v from=\$from -v to=\$to -v shard=${range.baseName} '
        function is_prime(n,    d) {
            if (n < 4) return n > 1
            if (n % 2 == 0) return 0
            for (d = 3; d * d <= n; d += 2) if (n % d == 0) return 0
            return 1
        }
        BEGIN {
            OFS = "\\t"
            for (n = from; n < to; n++) found += is_prime(n)
            print shard, from, to, found + 0
        }
    ' > ${range.baseName}.tsv
    awk '{ print "Parallel execution: " \$1 " found " \$4 " primes from " \$2 " to " \$3 }' ${range.baseName}.tsv
    ${pace(seconds)}
    """
}

process GATHER {
    debug true

    input:
    path counts
    val limit
    val seconds

    output:
    path 'primes.tsv'

    script:
    """
    sort -V ${counts} > primes.tsv
    awk '{ sum += \$4 } END { print "Gather: " sum " primes below ${limit}, from " NR " shards" }' primes.tsv
    ${pace(seconds)}
    """
}

workflow {
    def fast   = params.fast.toString().toBoolean()
    def shards = params.shards as int
    if (shards < 1 || shards > 100) {
        error "shards: ${shards} is not between 1 and 100"
    }
    log.info "Parallel execution: scatter into ${shards} shards, count side by side, gather"

    SCATTER(params.limit as int, shards, fast ? 1 : 8)
    COUNT_PRIMES(SCATTER.out.flatten(), fast ? 1 : 25)
    GATHER(COUNT_PRIMES.out.collect(), params.limit as int, fast ? 1 : 8)
}
