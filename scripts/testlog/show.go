package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// An event is one line of go test -json (go doc test2json; for build-output,
// go help buildjson).
type event struct {
	Action, Package, Test, Output string
}

// A name is a test of a package.
type name struct{ pkg, test string }

// A log keeps the output of the tests that still run.
type log struct {
	w       io.Writer
	output  map[name][]string
	order   []name // of the first output, so that what a crash leaves is in order
	skipped []string
}

// show copies the events in r to w: the lines about packages at once, those
// of a test if it failed.
func show(w io.Writer, r io.Reader) error {
	l := &log{w: w, output: make(map[name][]string)}
	for br := bufio.NewReader(r); ; {
		line, err := br.ReadString('\n')
		var e event
		switch {
		case line == "":
		case json.Unmarshal([]byte(line), &e) != nil:
			fmt.Fprint(w, line)
		default:
			l.take(e)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if len(l.skipped) == 0 {
		fmt.Fprintln(w, "no test was skipped")
		return nil
	}
	fmt.Fprintf(w, "skipped, %d:\n", len(l.skipped))
	for _, s := range l.skipped {
		fmt.Fprintln(w, " ", s)
	}
	return nil
}

func (l *log) take(e event) {
	n := name{e.Package, e.Test}
	switch {
	case e.Action == "build-output", e.Action == "output" && e.Test == "" && e.Output != "PASS\n":
		fmt.Fprint(l.w, e.Output)
	case e.Action == "output" && e.Test != "":
		if strings.HasPrefix(e.Output, "=== ") {
			return
		}
		if l.output[n] == nil {
			l.order = append(l.order, n)
		}
		l.output[n] = append(l.output[n], e.Output)
	case e.Action == "skip" && e.Test != "":
		l.skipped = append(l.skipped, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(l.output[n])))
		l.drop(n)
	case e.Action == "pass" && e.Test != "":
		l.drop(n)
	case e.Action == "fail":
		// A package that fails takes along the tests that never ended.
		for _, o := range slices.Clone(l.order) {
			if o == n || e.Test == "" && o.pkg == e.Package {
				fmt.Fprint(l.w, strings.Join(l.output[o], ""))
				l.drop(o)
			}
		}
	}
}

func (l *log) drop(n name) {
	delete(l.output, n)
	l.order = slices.DeleteFunc(l.order, func(o name) bool { return o == n })
}

// place is where a test logged a line, as package testing writes it.
var place = regexp.MustCompile(`^\s*\S+\.go:\d+: `)

// reason is the last thing that a skipped test said.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		if place.MatchString(line) {
			return strings.TrimSpace(place.ReplaceAllString(line, ""))
		}
	}
	return "no reason given"
}
