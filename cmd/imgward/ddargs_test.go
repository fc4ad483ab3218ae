package main

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"imgward/guard"
)

func TestWhoseCommandLine(t *testing.T) {
	for _, tt := range []struct {
		argv string
		want string
		ok   bool
	}{
		{"imgward dd if=a of=b", "if=a of=b", true},
		{"/usr/sbin/imgward dd", "", true},
		{"dd if=a", "if=a", true},
		{"/usr/local/sbin/dd", "", true},
		{"/usr/local/sbin/dd dd", "dd", true},
		{"imgward check dd", "", false},
		{"imgward", "", false},
		{"imgward -q dd", "", false},
		{"", "", false},
	} {
		words, ok := ddWords(strings.Fields(tt.argv))
		if got := strings.Join(words, " "); got != tt.want || ok != tt.ok {
			t.Errorf("%q: %q, %t", tt.argv, got, ok)
		}
	}
}

func TestSplitDD(t *testing.T) {
	override := func(code guard.Code, key string) guard.Override { return guard.Override{Code: code, Key: key} }
	for _, tt := range []struct {
		words    string
		said     ddSaid
		operands string
		err      string
	}{
		{"if=a of=b", ddSaid{}, "if=a of=b", ""},
		{"--override=fd.read:cat.7 if=a of=b", ddSaid{override: []guard.Override{override(guard.FDRead, "cat.7")}}, "if=a of=b", ""},
		{"if=a --domain=web1 of=b", ddSaid{domain: "web1"}, "if=a of=b", ""},
		{"if=a of=b --domain web1 --override config.named:web1", ddSaid{domain: "web1", override: []guard.Override{override(guard.ConfigNamed, "web1")}}, "if=a of=b", ""},
		{"--override=fd.read:a --override=fd.read:b", ddSaid{override: []guard.Override{override(guard.FDRead, "a"), override(guard.FDRead, "b")}}, "", ""},
		{"--override=blind.xen:/a=b of=c", ddSaid{override: []guard.Override{override("blind.xen", "/a=b")}}, "of=c", ""},
		{"--no-claim of=/dev/sdb", ddSaid{noClaim: true}, "of=/dev/sdb", ""},
		{"-- --domain=web1 of=b", ddSaid{}, "-- --domain=web1 of=b", ""},
		{"of=--domain=web1", ddSaid{}, "of=--domain=web1", ""},
		{"--help --version -x -", ddSaid{}, "--help --version -x -", ""},
		{"--domain", ddSaid{}, "", "option '--domain' requires an argument"},
		{"of=b --override", ddSaid{}, "", "option '--override' requires an argument"},
		{"--domain= of=b", ddSaid{}, "", "the value of option '--domain' is empty"},
		{"--override=fd.read of=b", ddSaid{}, "", "want CODE:SUBJECT"},
		{"--override=fd.write:cat.7 of=b", ddSaid{}, "", "nothing overrides fd.write"},
	} {
		said, operands, err := splitDD(strings.Fields(tt.words))
		if tt.err != "" {
			var usage *usageError
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: %v", tt.words, err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(said, tt.said) || strings.Join(operands, " ") != tt.operands {
			t.Errorf("%q: %+v, %q, %v", tt.words, said, operands, err)
		}
		if p := said.policy(); p.Operation != guard.DD || p.Domain != said.domain || !slices.Equal(p.Override, said.override) {
			t.Errorf("%q: %+v", tt.words, p)
		}
	}
}

// What a refusal offers is what the command line takes, as it is printed.
func TestOfferedOverrideForDD(t *testing.T) {
	v := guard.Policy{Operation: guard.DD}.Judge([]guard.Finding{{Code: guard.ConfigNamed, Key: "web1"}, {Code: guard.LockRead, Key: "qemu.7"}})
	for _, hint := range v.Hints() {
		if add, ok := strings.CutPrefix(hint, "if you know better, add: "); ok {
			said, operands, err := splitDD(append([]string{"if=a", "of=b"}, strings.Fields(add)...))
			if err != nil || !slices.Equal(operands, []string{"if=a", "of=b"}) || !slices.Equal(said.override, v.Overrides()) {
				t.Errorf("%q: %+v, %q, %v", hint, said, operands, err)
			}
			return
		}
	}
	t.Errorf("nothing offered: %q", v.Hints())
}

func TestStatusOfDD(t *testing.T) {
	for err, want := range map[error]int{
		nil:                    0,
		errors.New("no space"): 1,
		errInterrupted:         1,
		&usageError{"words"}:   1,
		fmt.Errorf("dd: %w", &guard.RefusedError{}):                     3,
		&guard.IncompleteError{Path: "b", Err: &guard.BrokenError{}}:    4,
		errors.Join(&guard.BrokenError{}, errors.New("error writing")):  4,
		errors.Join(errors.New("error writing"), &guard.RefusedError{}): 3,
	} {
		if got := ddStatus(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}
