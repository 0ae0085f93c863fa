package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/internal/keys"
)

// check looks for what single values can't show.
func (r *reader) check(f *File) {
	r.checkBounds("bounds", f.Bounds.Room)
	r.checkBodies(f)
	r.checkListen(f)
	r.checkKeys(f)
	r.checkWays(f)
	for i := range f.Orgs {
		r.checkOrg(&f.Orgs[i])
	}
}

// checkBounds finds bounds of one caller that are above those of all.
func (r *reader) checkBounds(field string, b Room) {
	for _, c := range []struct {
		name       string
		single, of int64
	}{
		{"held", int64(b.HeldPerCaller), int64(b.Held)},
		{"queued", b.QueuedPerCaller, b.Queued},
		{"queued_bytes", b.QueuedBytesPerCaller, b.QueuedBytes},
	} {
		if c.single > c.of {
			r.bad(r.field(below(field, c.name+"_per_caller")), "%d is above %s, which is %d", c.single, c.name, c.of)
		}
	}
}

func (r *reader) checkBodies(f *File) {
	b := &f.Bounds
	if b.Buffer > b.Buffered {
		r.bad(r.field("bounds.buffer"), "%d is above buffered, which is %d: no body would fit", b.Buffer, b.Buffered)
	}
	if b.Buffer > b.Body && r.given("bounds.buffer") {
		r.bad(r.field("bounds.buffer"), "%d is above body, which is %d", b.Buffer, b.Body)
	}
	b.Buffer = min(b.Buffer, b.Body)
}

// checkListen finds addresses that are there twice, and doors that would stand
// open to others.
func (r *reader) checkListen(f *File) {
	for i, address := range f.Listen {
		if slices.Contains(f.Listen[:i], address) {
			r.bad(r.field("listen"), "%s is there twice", address)
		}
	}
	for _, g := range f.gaps() {
		if !r.given(g.unless) {
			r.bad(r.field(g.field), "%s", g.what)
		}
	}
}

// gap is what a file lacks whose gateway others reach.
type gap struct {
	field, what string
	unless      string // the key that would fill it; if it is given, what is wrong was said
}

// gaps finds what f lacks for an address that others reach.
func (f *File) gaps() (all []gap) {
	i := slices.IndexFunc(f.Listen, func(a string) bool { return !isLoopback(a) })
	if i < 0 {
		return nil
	}
	foreign := f.Listen[i]
	if f.TLS == (TLS{}) && !f.TLSInFront {
		all = append(all, gap{"listen", foreign + " is reached by others, who would send their keys in the clear: give tls, or say tls_in_front: true if something in front of the gateway has it", "tls"})
	}
	keyed := len(f.Operators) > 0
	for i := range f.Orgs {
		o := &f.Orgs[i]
		keyed = keyed || len(o.Callers) > 0
		if field := "orgs." + o.Name + ".callers"; !o.PassThrough && len(o.Callers) == 0 {
			all = append(all, gap{field, "is missing: others reach " + foreign + ", and could call as this org without a key; make one with headgate key new", field})
		}
	}
	if !keyed && len(f.Orgs) > 0 {
		all = append(all, gap{"operators", "is missing: others reach " + foreign + ", and no key guards the page; make one with headgate key new", "operators"})
	}
	return all
}

// ListenOn has f listen on one address in place of its own. It is an error, and
// f is of no use, if that is no address, or is reached by others and f lacks what
// then has to be there: TLS, and keys.
func (f *File) ListenOn(address string) error {
	address, err := listenAddress.parse(address)
	if err != nil {
		return errors.New("takes " + listenAddress.takes)
	}
	f.Listen = []string{address}
	for _, g := range f.gaps() {
		return errors.New(g.field + ": " + g.what)
	}
	return nil
}

// checkKeys finds keys that belong to two.
func (r *reader) checkKeys(f *File) {
	owner := map[keys.Hash]string{}
	claim := func(h keys.Hash, field string) {
		if h.IsZero() {
			return // said already
		}
		if other, taken := owner[h]; taken {
			r.bad(r.field(field+".key"), "is the key of %s too: a key says alone who calls, and for which org", other)
			return
		}
		owner[h] = field
	}
	for _, o := range f.Operators {
		claim(o.Key, "operators."+o.Name)
	}
	for i := range f.Orgs {
		for _, c := range f.Orgs[i].Callers {
			claim(c.Key, "orgs."+f.Orgs[i].Name+".callers."+c.Name)
		}
	}
}

// Paths that are the gateway's own, or the beginning of the platform's.
var reserved = []string{"/headgate", "/api", "/oauth", "/healthz", "/readyz", "/metrics", "/login"}

// checkWays finds orgs that can't be told apart, and those that nothing leads to.
func (r *reader) checkWays(f *File) {
	paths, hosts, fallback := map[string]string{}, map[string]string{}, ""
	for i := range f.Orgs {
		o := &f.Orgs[i]
		field := "orgs." + o.Name
		path := strings.ToLower(o.Path)
		other, taken := paths[path]
		switch {
		case path == "":
		case slices.Contains(reserved, path):
			r.bad(r.field(field+".path"), "%s is the gateway's own: give the org another path, or none", o.Path)
		case taken:
			r.bad(r.field(field+".path"), "%s is the path of orgs.%s too", o.Path, other)
		}
		paths[path] = o.Name
		for j, h := range o.Hosts {
			at := r.field(field + ".hosts")
			if item := fmt.Sprintf("%s.hosts[%d]", field, j); r.given(item) {
				at = r.field(item)
			}
			if other, taken := hosts[h]; taken {
				r.bad(at, "%s is a host of orgs.%s too", h, other)
			}
			hosts[h] = o.Name
		}
		if o.Default && fallback != "" {
			r.bad(r.field(field+".default"), "orgs.%s is the default too: one org is, at most", fallback)
		}
		if o.Default {
			fallback = o.Name
		}
		if o.Path == "" && len(o.Hosts) == 0 && len(o.Callers) == 0 && !o.Default {
			r.bad(r.field(field), "nothing leads to it: give it a path, hosts or callers, or make it the default")
		}
	}
}

func (r *reader) checkOrg(o *Org) {
	field := "orgs." + o.Name
	api, login := r.given(field+".api_url"), r.given(field+".login_url")
	switch {
	case r.given(field+".region") && (api || login):
		r.bad(r.field(field+".region"), "contradicts api_url and login_url: give either")
	case api != login:
		r.bad(r.field(field), "api_url and login_url go together")
	case !api && !r.given(field+".region"):
		r.bad(r.field(field+".region"), "is missing: takes a region such as eu-west-1, or give api_url and login_url")
	}
	for _, u := range []struct{ name, address string }{{"api_url", o.APIURL}, {"login_url", o.LoginURL}} {
		rest, plain := strings.CutPrefix(u.address, "http://")
		name, _, _ := strings.Cut(rest, "/")
		if plain && !isLoopback(name) {
			r.warn(r.field(field+"."+u.name), "is http: credentials and tokens go there in the clear")
		}
	}
	switch given := r.given(field + ".credentials"); {
	case given && o.PassThrough:
		r.bad(r.field(field+".credentials"), "contradicts mode: pass-through, in which callers bring their own tokens")
	case !given && !o.PassThrough:
		r.bad(r.field(field+".credentials"), "is missing: takes client_id and client_secret, or say mode: pass-through")
	}
	r.checkBounds(field+".bounds", o.Bounds)
	r.checkLimits(o, field)
	for _, c := range o.Callers {
		field := field + ".callers." + c.Name
		if c.Urgency < c.MostUrgent {
			r.bad(r.field(field+".urgency"), "%d is more urgent than most_urgent, which is %d", c.Urgency, c.MostUrgent)
		}
		for _, b := range []struct {
			name       string
			single, of int64
		}{{"held", int64(c.Held), int64(o.Bounds.Held)}, {"queued", c.Queued, o.Bounds.Queued}, {"queued_bytes", c.QueuedBytes, o.Bounds.QueuedBytes}} {
			if b.single > b.of && r.given(field+"."+b.name) {
				r.bad(r.field(field+"."+b.name), "%d is above that of the org, which is %d", b.single, b.of)
			}
		}
	}
}

func (r *reader) checkLimits(o *Org, field string) {
	seen := map[string]bool{}
	for i, l := range o.Limits {
		if seen[l.Name] {
			r.bad(r.field(fmt.Sprintf("%s.limits[%d].name", field, i)), "%s is there twice", l.Name)
		}
		seen[l.Name] = true
	}
}
