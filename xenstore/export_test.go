package xenstore

// Pending returns how many calls and watches c keeps account of.
func (c *Conn) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls) + len(c.watches)
}

// ClaimKeys returns what the node of a claim holds.
func ClaimKeys(cl Claim) map[string]string {
	keys := map[string]string{}
	for _, kv := range cl.keys() {
		keys[kv[0]] = kv[1]
	}
	return keys
}
