// sdk profiles itself with the unmodified Go SDK for a few seconds and pushes to the address given.
package main

import (
	"flag"
	"fmt"
	"log"
	"time"

	"github.com/grafana/pyroscope-go"
)

//go:noinline
func burnEncoder(until time.Time) (x uint64) {
	for time.Now().Before(until) {
		for i := uint64(0); i < 1<<16; i++ {
			x = x*31 + i
		}
	}
	return x
}

func main() {
	address := flag.String("address", "", "server")
	seconds := flag.Int("seconds", 3, "how long")
	tenant := flag.String("tenant", "", "tenant")
	flag.Parse()
	p, err := pyroscope.Start(pyroscope.Config{
		ApplicationName: "abr.packager", ServerAddress: *address, TenantID: *tenant, UploadRate: time.Second,
		Tags:         map[string]string{"region": "eu-west"},
		ProfileTypes: []pyroscope.ProfileType{pyroscope.ProfileCPU, pyroscope.ProfileInuseSpace, pyroscope.ProfileAllocObjects, pyroscope.ProfileAllocSpace, pyroscope.ProfileInuseObjects},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(burnEncoder(time.Now().Add(time.Duration(*seconds) * time.Second)))
	if err := p.Stop(); err != nil {
		log.Fatal(err)
	}
}
