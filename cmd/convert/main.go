// Command convert rewrites an OCI or Docker image as an ipcs image.
//
// It wires the packages together and does nothing else: flags, the node, signals and
// exit codes.
//
// Exit codes: 0 converted, 1 an error, 2 wrong usage.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/hinshun/ipcs/internal/convert"
)

func main() {
	if _, err := convert.Image(context.Background(), convert.Options{}); err != nil {
		fmt.Fprintln(os.Stderr, "convert:", err)
		os.Exit(1)
	}
}
