package main

import (
	"os"
	"strings"
	"testing"
)

// The refusal in the README is the one that a captured host gives.
func TestREADMEShowsARealRefusal(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	host, err := os.ReadFile("../../testdata/hosts/basic.txtar")
	if err != nil {
		t.Fatal(err)
	}
	_, answer, ok := strings.Cut(string(host), "-- want overwrite /srv/images/web1.img --\n")
	if !ok {
		t.Fatal("the captured host has no such question")
	}
	_, answer, _ = strings.Cut(answer, "\n\n")
	answer, _, _ = strings.Cut(answer, "-- want ")
	facts, hints, _ := strings.Cut(answer, "hint: ")
	for _, part := range []string{facts, "hint: " + hints} {
		if !strings.Contains(string(readme), part) {
			t.Errorf("the README does not show\n%s", part)
		}
	}
}
