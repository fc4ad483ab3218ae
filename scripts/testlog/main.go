// Command testlog reads what go test -json writes and shows it as go test
// alone would, and at the end names each test that was skipped, and why.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := show(os.Stdout, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testlog:", err)
	}
}
