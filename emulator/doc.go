// Package emulator is a stand-in for the Genesys Cloud platform API: log-in,
// both forms of flow execution, the limits API, and the 429 of the real thing,
// as one [http.Handler]. It is built to judge clients: it keeps a ledger of
// every arrival and says in its [Report] what was executed, doubled, rejected
// and sent too early, and how the time compares with what the limit allowed.
//
//	srv, err := emulator.New(emulator.Config{
//		Limits: []emulator.Limit{{Rate: 50, Burst: 100}},
//	})
//	if err != nil {
//		log.Fatal(err)
//	}
//	go http.ListenAndServe("localhost:8080", srv.API())
//	http.ListenAndServe("localhost:8081", srv.Admin())
//
// It is an independent witness: it imports nothing but the standard library
// and shares no code with any client, not even the parser of a header.
//
// It is deliberately unhelpful where the platform is. A success says nothing
// about the level of a limit; Retry-After may be absent, fluctuate or be
// garbage; a connection can be cut after the flow was executed; and no
// idempotency key exists, so what is sent twice is executed twice.
//
// # Time
//
// Everything uses package time, so inside a [testing/synctest] bubble an hour
// takes no time and durations are exact. Call [New] inside the bubble. The
// package starts no goroutine and holds no lock while it waits: there is
// nothing to close.
//
// # What counts as one execution
//
// The platform gives an execution no identity that both sides know, so the
// emulator takes it from the request: the flow's id and a hash of the body. Two
// executions of one flow with byte-identical bodies therefore look like one
// that was doubled. Give every row something unique, or set [Config].Key.
//
// Package headgatetest connects a client to an emulator without sockets.
package emulator
