package layering_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// heavy are packages whose initialization costs the start of every command some
// tenths of a millisecond, of the three that "imgward dd" may take longer than dd.
var heavy = []string{"net/http", "crypto/tls", "github.com/russross/blackfriday/v2", "html/template"}

// What "make build" links starts without them: progressbar is of the last version
// that brings no web server, and cli is built without its documents.
func TestStartIsLight(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-tags", "urfave_cli_no_docs", "./cmd/imgward")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := strings.Fields(string(out))
	if len(linked) < 50 {
		t.Fatalf("go list named %d packages", len(linked))
	}
	for _, pkg := range heavy {
		if slices.Contains(linked, pkg) {
			t.Errorf("imgward links %s", pkg)
		}
	}
}
