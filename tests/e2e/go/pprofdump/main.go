// pprofdump prints pprof files as canonical JSON, one line each: google/pprof's reading of them.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"flue/tests/e2e/go/canonical"

	"github.com/google/pprof/profile"
)

func main() {
	out := json.NewEncoder(os.Stdout)
	for _, path := range os.Args[1:] {
		data, err := os.ReadFile(path)
		if err == nil {
			var p *profile.Profile
			if p, err = profile.ParseData(data); err == nil {
				if err = p.CheckValid(); err == nil {
					err = out.Encode(canonical.Of(p, true))
				}
			}
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			os.Exit(1)
		}
	}
}
