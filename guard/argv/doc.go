// Package argv says where the command lines of other programs would write: which
// operands of dd, cp, mkfs and their like are what they overwrite, destroy or
// replace.
//
// A [Place] is such an operand, as the program takes it: "the file, or, where it is
// a directory, those in it that have the sources' names". What lies there is not
// looked at here; the package is pure, and one table ([Programs]) is all that it
// knows. The programs' manual pages, and getopt_long(3) for the options, are its
// source.
//
// What it does not understand makes it more careful: an option that it does not
// know may take a value, so that every word of the line may be a target then. Where
// a line does not say what is written at all, there is an [UntoldError].
package argv
