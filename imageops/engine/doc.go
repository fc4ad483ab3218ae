// Package engine keeps requests in flight.
//
//   - An [Op] is one request: read, write, zero or sync an [Endpoint], or call a
//     function.
//   - An [Engine] takes ops and gives every one of them back exactly once, with
//     its error and byte count. An op's buffer belongs to the engine from Start
//     until Wait returns that op.
//   - [Pool] is the engine: workers that make the plain blocking calls.
//   - [Limited] is an engine that keeps to a rate.
//   - [Faulty] is an engine in which chosen ops go wrong.
//
// An op that comes back is a failed op until its endpoint said otherwise: fewer
// bytes than asked for are an error, whatever the endpoint thinks of it.
//
//	e := engine.Pool(16)
//	defer e.Close()
//	op := &engine.Op{Kind: engine.Read, End: disk, Off: 0, Buf: chunk}
//	if err := e.Start(ctx, op); err != nil {
//		return err
//	}
//	op, err := e.Wait()
//	...
//	if op.Err != nil {
//		return op.Err
//	}
package engine
