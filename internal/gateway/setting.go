package gateway

import (
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/keys"
)

// setting is what one file says, as requests see it. It is never changed: a
// reload makes another.
type setting struct {
	file           *config.File
	orgs           []*org
	byName         map[string]*org
	byPath, byHost map[string]*org
	fallback       *org // for what names no org; nil if there is none
	callers        *keys.Ring
	operators      *keys.Ring
	prints         map[string]string // of callers' keys, by id
	operatorPrints map[string]string
}

// newSetting makes the setting of a file. Orgs that old has go on with what they
// have; others are opened. On an error nothing of old was changed.
func (g *Gateway) newSetting(f *config.File, old *setting) (s *setting, err error) {
	s = &setting{file: f, byName: map[string]*org{}, byPath: map[string]*org{}, byHost: map[string]*org{}}
	var opened, returned []*org
	defer func() {
		if err != nil {
			for _, o := range opened {
				o.close()
			}
			for _, o := range returned {
				g.retire(o)
			}
		}
	}()
	for i := range f.Orgs {
		conf := &f.Orgs[i]
		o := old.org(conf.Name)
		if o == nil {
			if o = g.back(conf.Name); o != nil {
				returned = append(returned, o)
			}
		}
		if o == nil {
			if o, err = g.newOrg(conf); err != nil {
				return nil, err
			}
			opened = append(opened, o)
		}
		s.orgs = append(s.orgs, o)
		s.byName[conf.Name] = o
		if conf.Path != "" {
			s.byPath[conf.Path] = o
		}
		for _, host := range conf.Hosts {
			s.byHost[strings.ToLower(host)] = o
		}
		if conf.Default {
			s.fallback = o
		}
	}
	if err := s.readKeys(f); err != nil {
		return nil, err
	}
	for i, o := range s.orgs {
		if !slices.Contains(opened, o) {
			if err := o.apply(&f.Orgs[i]); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// readKeys makes the rings of keys.
func (s *setting) readKeys(f *config.File) error {
	s.prints, s.operatorPrints = map[string]string{}, map[string]string{}
	var callers, operators []keys.Entry
	for i := range f.Orgs {
		for _, c := range f.Orgs[i].Callers {
			id := callerID(f.Orgs[i].Name, c.Name)
			callers = append(callers, keys.Entry{ID: id, Name: c.Name, Hash: c.Key})
			s.prints[id] = c.Key.Fingerprint()
		}
	}
	for _, op := range f.Operators {
		operators = append(operators, keys.Entry{ID: op.Name, Name: op.Name, Hash: op.Key})
		s.operatorPrints[op.Name] = op.Key.Fingerprint()
	}
	var err error
	if s.callers, err = keys.NewRing(callers); err != nil {
		return fmt.Errorf("callers: %w", err)
	}
	if s.operators, err = keys.NewRing(operators); err != nil {
		return fmt.Errorf("operators: %w", err)
	}
	return nil
}

// callerID names a caller among those of all orgs.
func callerID(org, caller string) string { return org + "/" + caller }

func (s *setting) org(name string) *org {
	if s == nil {
		return nil
	}
	return s.byName[name]
}

// only returns the org if there is one alone.
func (s *setting) only() *org {
	if len(s.orgs) == 1 {
		return s.orgs[0]
	}
	return nil
}

// keyed reports whether the file names any key: then nobody is let in without
// one.
func (s *setting) keyed() bool { return len(s.prints)+len(s.operatorPrints) > 0 }

// home takes a caller's id apart.
func (s *setting) home(id string, ok bool) (*org, string, bool) {
	org, name, _ := strings.Cut(id, "/")
	o := s.byName[org]
	return o, name, ok && o != nil
}

// fingerprint tells the key of a caller from the one before it.
func (s *setting) fingerprint(org, caller string) string { return s.prints[callerID(org, caller)] }

func (s *setting) operatorKey(name string) string { return s.operatorPrints[name] }

// operatorBy finds the operator with these credentials.
func (s *setting) operatorBy(c credentials) (name string, ok bool) {
	if c.name != "" {
		return s.operators.ByNameAndKey(c.name, c.key)
	}
	return s.operators.ByKey(c.bearer)
}
