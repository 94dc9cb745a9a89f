// Package e2e tests the whole product: API, relay and workers in the test's process, with a real
// PostgreSQL, Temporal and OpenID provider, which package stacktest starts once for all packages.
//
// A test reads as what a person does, and what becomes of it:
//
//	func TestCascade_EndsAndProves(t *testing.T) {
//		p := newPlatform(t)                              // an agent platform, by the webhook contract
//		i := install(t, withConnectors(p.connector()))   // a leaver for this test, with its own database
//		ada := i.createUser("ada@example.com")
//		agent := i.createAgent("writer", ada)            // owned by ada
//		key := i.hold(p, ada, agent, "key-1")            // the platform issues and registers it
//		i.deactivate(ada)                                // PATCH active:false over SCIM
//		if c := i.closed(ada); c.Outcome != "completed" || i.state(key) != "verified" {
//			t.Errorf("cascade %+v, key %s", c, i.state(key))
//		}
//	}
//
// The harness is in harness_test.go; installAPI starts no worker. platform_test.go has the
// agent platform, receiver_test.go a receiver of security events. i.call sends a
// request, i.must fails the test unless it succeeds, i.sql changes the database as its owner.
// stacktest.Eventually waits for a condition; no test sleeps.
//
// The files are named by subject: cascade, rotation, lease, cancel, waive and threshold are the life
// of a cascade; credential, downstream_answers and owners what is registered; access, entitlement and
// mover decisions and rules; ssf, notify, issuers and triggers the ways in and out; faults, records,
// security, isolation, authority and regressions what must not happen; scale, fairness and the
// benchmarks how it grows.
package e2e
