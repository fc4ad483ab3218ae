package main

import (
	"strings"
	"testing"
	"testing/iotest"
)

func TestShow(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"passes", `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: chatter\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`, "ok  \tp\t0.1s\nno test was skipped\n"},
		{"fails", `{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: wrong\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    a_test.go:2: chatter\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"--- FAIL: TestA (0.00s)\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`, "    a_test.go:1: wrong\n--- FAIL: TestA (0.00s)\nFAIL\tp\t0.1s\nno test was skipped\n"},
		{"crashes", `{"Action":"output","Package":"p","Test":"TestA","Output":"panic: oh\n"}
{"Action":"output","Package":"q","Test":"TestA","Output":"    a_test.go:2: another package\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`, "FAIL\tp\t0.1s\npanic: oh\nno test was skipped\n"},
		{"skips", `{"Action":"output","Package":"p","Test":"TestA/x","Output":"    need.go:38: needs mkfs.xfs\n"}
{"Action":"output","Package":"p","Test":"TestA/x","Output":"--- SKIP: TestA/x (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestA/x"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"output","Package":"q","Output":"?   \tq\t[no test files]\n"}
{"Action":"skip","Package":"q"}
`, "?   \tq\t[no test files]\nskipped, 2:\n  p TestA/x: needs mkfs.xfs\n  p TestB: no reason given\n"},
		{"does not build", `{"ImportPath":"p","Action":"build-output","Output":"p/a.go:1:1: syntax error\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
not json
`, "p/a.go:1:1: syntax error\nFAIL\tp [build failed]\nnot json\nno test was skipped\n"},
		{"ends early", `{"Action":"output","Package":"p","Output":"ok  \tp\n"}
{"Action":"out`, "ok  \tp\n" + `{"Action":"out` + "no test was skipped\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var w strings.Builder
			if err := show(&w, iotest.OneByteReader(strings.NewReader(tt.in))); err != nil {
				t.Fatal(err)
			}
			if w.String() != tt.want {
				t.Errorf("shown\n%s\nwant\n%s", w.String(), tt.want)
			}
		})
	}
	if show(&strings.Builder{}, iotest.ErrReader(iotest.ErrTimeout)) == nil {
		t.Error("a read error was lost")
	}
}
