package xenstore

// Pending returns how many calls and watches c keeps account of.
func (c *Conn) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls) + len(c.watches)
}
