// Package ddcmd is dd: the language of its operands, what they mean, and the copy
// that they ask for, as GNU dd of coreutils 9.1 does it, with its counts, its
// words and its exit statuses. It knows nothing of what stands before the output:
// whoever runs a Job opens that, and decides whether it may be opened. Where it
// differs from GNU dd is said in ARCHITECTURE.md. The machine's own dd is the oracle
// of the tests.
package ddcmd
