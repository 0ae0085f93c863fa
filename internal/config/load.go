package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/headgate/headgate/genesys"
)

// The defaults that no other package has.
const (
	defaultListen      = "127.0.0.1:8080"
	defaultData        = "headgate-data"
	defaultKeep        = 7 * 24 * time.Hour
	defaultDrain       = 30 * time.Second
	defaultMaxWait     = 5 * time.Minute
	defaultConcurrency = 200
	defaultTimeout     = 5 * time.Minute
)

func defaults() File {
	return File{
		Listen: []string{defaultListen}, Data: defaultData,
		Keep: defaultKeep, Drain: defaultDrain, defaultMaxWait: defaultMaxWait,
		Bounds: Bounds{
			Room:   Room{Held: 10_000, Queued: 1_000_000, QueuedBytes: 4 << 30},
			Header: 64 << 10, Body: 32 << 20, Buffer: 1 << 20, Buffered: 256 << 20,
		},
	}
}

// maxFile is larger than any file that a person writes.
const maxFile = 1 << 20

// Sources is where references in a file lead. Nil is a place with nothing in it.
type Sources struct {
	// Env returns a variable of the environment, "" if it is not set.
	Env func(name string) string
	// ReadFile returns what is in a file.
	ReadFile func(path string) ([]byte, error)
}

// Load reads the file at path and all that it refers to. If something is wrong
// with what is in it the error is [Errors], which has all of it; the warnings come
// in either case.
func Load(path string, env func(name string) string) (*File, []Warning, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if info.Size() > maxFile {
		return nil, nil, Errors{tooLarge(path)}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	r := newReader(path, Sources{env, readSmallFile})
	f := r.read(text)
	if runtime.GOOS != "windows" { // whose permissions are elsewhere
		r.checkPermissions(info.Mode())
	}
	return r.result(f)
}

// Parse reads the text of a file. name is its path: messages begin with it, and
// paths in the file are seen from its folder.
func Parse(name string, text []byte, s Sources) (*File, []Warning, error) {
	r := newReader(name, s)
	if len(text) > maxFile {
		return nil, nil, Errors{tooLarge(name)}
	}
	return r.result(r.read(text))
}

func newReader(name string, s Sources) *reader {
	return &reader{name: name, sources: s, where: map[string]place{}}
}

func tooLarge(name string) Problem {
	return Problem{File: name, Line: 1, Column: 1, Message: fmt.Sprintf("is larger than %d bytes", maxFile)}
}

func (r *reader) result(f *File) (*File, []Warning, error) {
	byPlace(r.warnings)
	if len(r.problems) > 0 {
		byPlace(r.problems)
		return nil, r.warnings, r.problems
	}
	return f, r.warnings, nil
}

// read makes a file of its text. It is of no use if there are problems.
func (r *reader) read(text []byte) *File {
	f := defaults()
	f.Name = r.name
	body := r.tree(string(text))
	if len(r.problems) > 0 {
		return nil
	}
	if body == nil {
		r.bad(value{}, "is empty: takes at least orgs")
		return nil
	}
	r.mapping(value{node: body, at: place{1, 1}}, f.keys())
	f.Data = r.path(f.Data)
	r.readTLS(&f.TLS)
	f.fill(r)
	r.check(&f)
	return &f
}

// tree parses YAML. A file has one document, or none: then it returns nil.
func (r *reader) tree(text string) ast.Node {
	tokens := lexer.Tokenize(text)
	if t := tooDeep(tokens); t != nil {
		r.bad(value{at: place{t.Position.Line, t.Position.Column}}, "is nested deeper than anything here")
		return nil
	}
	// Keys that are there twice are found later, with all others.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		v, message := value{}, err.Error()
		if e := yaml.Error(nil); errors.As(err, &e) {
			message = e.GetMessage()
			if t := e.GetToken(); t != nil && t.Position != nil {
				v.at = place{t.Position.Line, t.Position.Column}
			}
		}
		r.bad(v, "is not YAML: %s", message)
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil || isNull(doc.Body):
		case body != nil:
			r.bad(value{at: startOf(doc.Body, place{})}, "has several documents: takes one")
			return nil
		default:
			body = doc.Body
		}
	}
	return body
}

// tooDeep returns the first token that is nested so deep that the parser would
// take long; nil is as it should be.
func tooDeep(tokens token.Tokens) *token.Token {
	const most = 32
	flow, entries, line := 0, 0, 0
	for _, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.AnchorType, token.TagType, token.MappingKeyType:
			if t.Position.Line != line {
				entries, line = 0, t.Position.Line
			}
			entries++
		}
		if flow > most || entries > most || t.Position.IndentLevel > most {
			return t
		}
	}
	return nil
}

// readTLS resolves the names of the certificate and its key and sees whether they
// are a pair.
func (r *reader) readTLS(t *TLS) {
	if t.Cert == "" || t.Key == "" {
		return
	}
	t.Cert, t.Key = r.path(t.Cert), r.path(t.Key)
	cert, cerr := r.readFile(t.Cert)
	if cerr != nil {
		r.bad(r.field("tls.cert"), "%v", cerr)
	}
	key, kerr := r.readFile(t.Key)
	if kerr != nil {
		r.bad(r.field("tls.key"), "%v", kerr)
	}
	if cerr != nil || kerr != nil {
		return
	}
	v := r.field("tls.key")
	v.field = t.Key
	r.files = append(r.files, v)
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		r.bad(r.field("tls"), "the certificate and its key can't be used: %v", err)
	}
}

// readFile reads a file that the file refers to.
func (r *reader) readFile(path string) ([]byte, error) {
	if r.sources.ReadFile == nil {
		return nil, fmt.Errorf("the file %s does not exist", path)
	}
	text, err := r.sources.ReadFile(path)
	var pathError *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the file %s does not exist", path)
	case errors.As(err, &pathError):
		return nil, fmt.Errorf("the file %s can't be read: %w", path, pathError.Err)
	}
	return text, err
}

// readSmallFile reads a secret, or a certificate. It does not wait for what is no
// file.
func readSmallFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("it is not a file")}
	case info.Size() > maxFile:
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("it is larger than any secret")}
	}
	return os.ReadFile(path)
}

// checkPermissions warns of secrets that everybody on the machine can read.
func (r *reader) checkPermissions(mode fs.FileMode) {
	if r.inline && mode.Perm()&0o004 != 0 {
		r.warn(value{}, "holds a secret and can be read by everybody on this machine (%v): chmod o-r", mode.Perm())
	}
	for _, v := range r.files {
		if info, err := os.Stat(v.field); err == nil && info.Mode().Perm()&0o004 != 0 {
			path := v.field
			v.field = ""
			r.warn(v, "the file %s holds a secret and can be read by everybody on this machine (%v): chmod o-r", path, info.Mode().Perm())
		}
	}
}

// fill fills in what the file leaves to defaults.
func (f *File) fill(r *reader) {
	for i := range f.Orgs {
		o := &f.Orgs[i]
		field := below("orgs", o.Name)
		o.Default = o.Default || len(f.Orgs) == 1
		if o.MaxWait == 0 {
			o.MaxWait = f.defaultMaxWait
		}
		switch o.Path {
		case "":
			o.Path = "/" + o.Name
		case "none":
			o.Path = ""
		}
		if region, err := genesys.LookupRegion(o.Region); err == nil && o.APIURL == "" && o.LoginURL == "" {
			o.APIURL, o.LoginURL = region.APIURL(), region.LoginURL()
		}
		own := o.Bounds
		o.Bounds.fill(f.Bounds.Room)
		o.Bounds.share(own, f.Bounds.Room, len(o.Callers))
		for j := range o.Callers {
			c := &o.Callers[j]
			guest := o.Guest("")
			if c.Held == 0 {
				c.Held = guest.Held
			}
			if c.Queued == 0 {
				c.Queued = guest.Queued
			}
			if c.QueuedBytes == 0 {
				c.QueuedBytes = guest.QueuedBytes
			}
			if !r.given(below(below(below(field, "callers"), c.Name), "urgency")) {
				c.Urgency = max(c.Urgency, c.MostUrgent)
			}
		}
	}
	f.Bounds.share(f.Bounds.Room, Room{}, 2)
}

// fill takes from all what b does not say, but for single callers.
func (b *Room) fill(all Room) {
	if b.Held == 0 {
		b.Held = all.Held
	}
	if b.Queued == 0 {
		b.Queued = all.Queued
	}
	if b.QueuedBytes == 0 {
		b.QueuedBytes = all.QueuedBytes
	}
}

// share says how much of it a single caller may have, unless the org or the whole
// file says so: half, so that there is room beside it, or all if it is the only
// one.
func (b *Room) share(own, all Room, callers int) {
	parts := int64(2)
	if callers <= 1 {
		parts = 1
	}
	portion := func(own, all, whole int64) int64 {
		switch {
		case own > 0:
			return own
		case all > 0:
			return min(all, whole)
		}
		return max(1, whole/parts)
	}
	b.HeldPerCaller = int(portion(int64(own.HeldPerCaller), int64(all.HeldPerCaller), int64(b.Held)))
	b.QueuedPerCaller = portion(own.QueuedPerCaller, all.QueuedPerCaller, b.Queued)
	b.QueuedBytesPerCaller = portion(own.QueuedBytesPerCaller, all.QueuedBytesPerCaller, b.QueuedBytes)
}

// Single returns what holds for one org without a file: loopback, no keys, and
// all defaults. Of the org, what is zero becomes its default; it needs a Name and
// the addresses, or a Region.
func Single(o Org) *File {
	f := defaults()
	o.Path = "none"
	if o.Concurrency == 0 {
		o.Concurrency = defaultConcurrency
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	f.Orgs = []Org{o}
	f.fill(newReader("", Sources{}))
	return &f
}

// FromEnv makes the file of those who have none: one org, named default, with the
// credentials and the region of the environment, on loopback. What is missing is a
// *[genesys.EnvError], an unknown region a *[genesys.RegionError].
func FromEnv(env func(name string) string) (*File, []Warning, error) {
	var missing []string
	get := func(name string) string {
		v := strings.TrimSpace(env(name))
		if v == "" {
			missing = append(missing, name)
		}
		return v
	}
	c := genesys.Credentials{ClientID: get(genesys.EnvClientID), ClientSecret: genesys.NewSecret(get(genesys.EnvClientSecret)), Region: get(genesys.EnvRegion)}
	if len(missing) > 0 {
		return nil, nil, &genesys.EnvError{Missing: missing}
	}
	region, err := genesys.LookupRegion(c.Region)
	if err != nil {
		return nil, nil, err
	}
	return Single(Org{Name: "default", Region: region.Name, Credentials: c}), nil, nil
}
