package guard

// Collectors is the list of all collectors, in the order in which their
// findings are reported. Each lies in a file of its own. Those that open the
// target run after the others.
func Collectors() []Collector {
	return []Collector{
		xen{},
		configs{},
		saved{},
		holders{},
		exports{},
		dm{},
		mounts{},
		swaps{},
		procfd{},
		lease{},
		locks{},
		excl{},
		locality{},
		chain{},
		self{},
		marks{},
		managed{},
		near{},
		opening{contents{}},
	}
}
