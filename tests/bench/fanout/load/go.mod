module nextflow-controller/tests/bench/fanout/load

go 1.24.0
