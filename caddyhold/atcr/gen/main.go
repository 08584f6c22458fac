// Command gen writes the DAG-CBOR code of the atcr record types.
package main

import (
	"log"

	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/caddyhold/caddyhold/caddyhold/atcr"
)

func main() {
	gen := cbg.Gen{MaxStringLength: 1 << 20}
	err := gen.WriteMapEncodersToFile("cbor_gen.go", "atcr",
		atcr.Captain{}, atcr.Crew{}, atcr.Layer{}, atcr.Stats{})
	if err != nil {
		log.Fatal(err)
	}
}
