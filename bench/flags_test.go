package bench_test

import (
	"flag"
	"time"
)

// How much is measured; smaller values make a quick check of the benchmarks themselves.
var (
	size        = flag.Int64("size", 1024, "MiB of each blob that goes up and down")
	connections = flag.Int("connections", 50, "connections that make small requests at once")
	duration    = flag.Duration("duration", 2*time.Second, "time for which small requests are made in each round")
	records     = flag.Int("records", 10_000, "records in the repository before more are created")
	admin       = flag.String("admin", "off", "address of the hold's Caddy admin endpoint, which has profiles below /debug/pprof/")
)
