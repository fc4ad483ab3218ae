// Package xenstoretest runs xenstore daemons for tests and demonstrations, on
// machines without Xen.
//
// The nouns:
//
//   - A [Server] is a daemon inside this process. It holds a tree of values,
//     loads it from a dump, tells its watches of every change, and misbehaves on
//     request: see [Reply].
//   - A dump is what "xenstore-ls -f" or "xenstore-ls -f -p" prints.
//   - A [Daemon] is the real xenstored of an installed Xen as a child process,
//     with a socket and state of its own, kept from noticing that there is no
//     hypervisor.
//
// Nothing here needs a testing.T, and after Close or Stop nothing is left: no
// goroutine, no process, no file.
//
// The Server has its own encoder and decoder, so that it does not share the
// mistakes of the client it tests.
//
// Example:
//
//	s := xenstoretest.NewServer()
//	defer s.Close()
//	s.Set("/local/domain/7/name", "web01")
//	conn := xenstore.NewConn(s.Pipe())
//	defer conn.Close()
package xenstoretest
