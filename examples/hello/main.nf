// One process, one task: the smallest run worth watching.

process HELLO {
    debug true

    input:
    val seconds

    output:
    path 'hello.txt'

    // The greeting and its checksum are real work of a moment; the sleep after it is there to be watched.
    script:
    """
    {
        echo "Hello, world!"
        echo "Simple single process output"
        seq 1 100000 | sha256sum | cut -c 1-16 | sed 's/^/Checksum of the numbers up to 100000: /'
    } | tee hello.txt
    sleep \$(( SECONDS < ${seconds} ? ${seconds} - SECONDS : 0 ))
    """
}

workflow {
    def fast = params.fast.toString().toBoolean()
    log.info "hello: one process, about ${fast ? 'eight' : 'thirty'} seconds"
    HELLO(fast ? 3 : 24)
}
