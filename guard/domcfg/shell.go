package domcfg

import "strings"

// ParseShell reads assignments out of a file that a shell sources, such as
// /etc/default/xendomains. Nothing is expanded: a value that a shell would work
// on, and any line that is neither an assignment nor empty, is an error that
// names the line, unless it is about other names than the wanted ones.
func ParseShell(text string, wanted ...string) (map[string]string, error) {
	out := map[string]string{}
	line := 0
	for l := range strings.Lines(text) {
		line++
		whole := strings.HasSuffix(l, "\n")
		l = strings.TrimSpace(l)
		name, value, ok := strings.Cut(strings.TrimPrefix(l, "export "), "=")
		mentioned := ""
		for _, w := range wanted {
			if !strings.HasPrefix(l, "#") && strings.Contains(l, w) {
				mentioned = w
			}
		}
		if mentioned == "" {
			continue
		}
		if !whole {
			return out, &SyntaxError{line, "cut off"}
		}
		if !ok || name != mentioned {
			// A longer name is another one: XENDOMAINS_AUTO_ONLY.
			if ok && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") == "" && !strings.Contains(value, mentioned) {
				continue
			}
			return out, &SyntaxError{line, "it is not understood what is done with " + mentioned}
		}
		v, ok := unquoteShell(value)
		if !ok {
			return out, &SyntaxError{line, "the value of " + name + " is not understood"}
		}
		out[name] = v
	}
	return out, nil
}

// unquoteShell reads a word without anything that a shell would expand, and a
// comment behind it.
func unquoteShell(s string) (string, bool) {
	for _, mark := range []string{`"`, `'`} {
		if in, ok := strings.CutPrefix(s, mark); ok {
			v, rest, closed := strings.Cut(in, mark)
			rest = strings.TrimLeft(rest, " \t;")
			ok := closed && (rest == "" || strings.HasPrefix(rest, "#")) && !strings.ContainsAny(v, "$`\\")
			return v, ok
		}
	}
	v, rest, _ := strings.Cut(strings.ReplaceAll(s, "\t", " "), " ")
	v = strings.TrimSuffix(v, ";")
	rest = strings.TrimLeft(rest, " ")
	return v, (rest == "" || strings.HasPrefix(rest, "#")) && !strings.ContainsAny(v, "$`\\\"';&|<>()*?[]~{}")
}
