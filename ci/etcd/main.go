// The etcd server that the tests run. It is built from here because `go install` refuses the server's own module, which
// has replacements in its go.mod.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
