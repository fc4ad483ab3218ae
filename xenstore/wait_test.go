package xenstore

import (
	"net"
	"testing"
	"testing/synctest"
)

// TestAnsweredBeforeTheDeath says that a reply that came before the end of the
// connection counts, also if nobody looked for it until then.
func TestAnsweredBeforeTheDeath(t *testing.T) {
	for range 20 { // what a select finds ready it takes at random
		synctest.Test(t, func(t *testing.T) {
			client, daemon := net.Pipe()
			c := NewConn(client)
			defer c.Close()
			p := c.patience(t.Context())
			defer p.stop()
			go func() {
				h, _, err := readMessage(daemon)
				if err != nil {
					t.Error(err)
				}
				msg, _ := appendMessage(nil, header{op: opRead, id: h.id}, "web01")
				daemon.Write(msg)
				daemon.Close()
			}()
			cl, err := c.start(t.Context(), p, opRead, "/a")
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if r, err := c.wait(t.Context(), p, cl); err != nil || string(r.body) != "web01\x00" {
				t.Errorf("%q, %v", r.body, err)
			}
		})
	}
}
