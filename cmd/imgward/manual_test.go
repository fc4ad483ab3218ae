package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/urfave/cli/v2"

	"imgward/guard"
	"imgward/guard/argv"
	"imgward/internal/testkit"
)

// statuses are the exit statuses in the words of the manual.
var statuses = []struct {
	Code int
	Text string
}{
	{exitOK, "done, and durable"},
	{exitFailed, "failed, nothing was written"},
	{exitRefused, "refused: in use, or could not be judged; nothing was written"},
	{exitIncomplete, "stopped after writing began: the target is incomplete and recorded as such"},
	{exitMismatch, "verification found a difference"},
	{exitConfirm, "confirmation is needed; nothing was written"},
	{exitUsage, "the command line"},
	{exitInterrupt, "interrupted, nothing was written"},
}

const manualPage = "../../imgward.8"

// The manual page is what its template, the options and the guard's tables make;
// -update writes it.
func TestManual(t *testing.T) {
	page := manual(t)
	if *update {
		if err := os.WriteFile(manualPage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(manualPage)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != page {
		t.Errorf("imgward.8 is not what it is made of; write it with \"go test ./cmd/imgward -run TestManual -update\"")
	}
}

// The page is one that groff has nothing to say about.
func TestManualIsRoff(t *testing.T) {
	testkit.Need(t, "groff")
	cmd := exec.Command("groff", "-man", "-ww", "-z", "-K", "utf8")
	cmd.Stdin = strings.NewReader(manual(t))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("groff: %v\n%s", err, out)
	}
}

// The README's exit statuses are those of the manual.
func TestStatusesInREADME(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(readme), "## Exit status\n")
	for _, s := range statuses {
		if _, line, ok := strings.Cut(table, "\n| "+fmt.Sprint(s.Code)+" | "); !ok || !strings.HasPrefix(line, s.Text+" |") {
			t.Errorf("the README does not say of %d: %s", s.Code, s.Text)
		}
	}
}

func manual(t *testing.T) string {
	type option struct{ Names, Value, Usage string }
	type code struct {
		Code, Text string
		Override   bool
	}
	type collector struct{ Name, Reads string }
	data := struct {
		Version, Programs string
		Commands          []*cli.Command
		Statuses          any
		Common            []cli.Flag
		Codes             []code
		Collectors        []collector
	}{Version: version, Programs: strings.Join(argv.Programs(), ", "), Statuses: statuses, Common: common(),
		Commands: newApp(&ui{con: system()}).VisibleCommands()}
	for _, c := range guard.Codes() {
		text, _ := guard.ExplainCode(c)
		_, err := guard.ParseOverride(string(c) + ":x")
		data.Codes = append(data.Codes, code{string(c), text, err == nil})
	}
	for _, c := range guard.Collectors() {
		reads := slices.Sorted(slices.Values(c.Reads()))
		data.Collectors = append(data.Collectors, collector{c.Name(), strings.Join(slices.Compact(reads), ", ")})
	}
	options := func(flags []cli.Flag) []option {
		var out []option
		for _, f := range flags {
			o := option{}
			for _, n := range f.Names() {
				if o.Names += ", "; len(n) > 1 {
					o.Names += "-"
				}
				o.Names += "-" + n
			}
			o.Names = strings.TrimPrefix(o.Names, ", ")
			if d, ok := f.(cli.DocGenerationFlag); ok {
				o.Usage = strings.ReplaceAll(d.GetUsage(), "`", "")
				if parts := strings.Split(d.GetUsage(), "`"); len(parts) == 3 {
					o.Value = parts[1]
				}
			}
			out = append(out, o)
		}
		return out
	}
	page, err := template.New("imgward.8.tmpl").Funcs(template.FuncMap{"roff": roff, "options": options, "own": own}).ParseFiles("testdata/imgward.8.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := page.Execute(&b, data); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// own are the options that not all commands have.
func own(c *cli.Command) []cli.Flag {
	return slices.DeleteFunc(slices.Clone(c.Flags), func(f cli.Flag) bool {
		return slices.ContainsFunc(common(), func(g cli.Flag) bool { return f.Names()[0] == g.Names()[0] })
	})
}

// roff makes text safe for groff_man(7).
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `"`, `\(dq`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
