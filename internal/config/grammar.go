package config

import (
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/schedule"
)

// The file's grammar: one table of keys for each mapping. Values are read into
// what the table was made for.

func (f *File) keys() []key {
	return []key{
		several("listen", &f.Listen, listenAddress),
		one("data", &f.Data, pathOf("folder")),
		object("tls", f.TLS.keys()),
		one("tls_in_front", &f.TLSInFront, flag),
		named("operators", "names, each with a key", func(r *reader, name string, v value) ([]key, func()) {
			op := Operator{Name: name}
			r.checkName(v, name, personName)
			return op.keys(), func() { f.Operators = append(f.Operators, op) }
		}),
		object("bounds", f.Bounds.keys()),
		one("keep", &f.Keep, span(time.Second)),
		one("drain", &f.Drain, span(0)),
		one("max_wait", &f.defaultMaxWait, span(time.Millisecond)),
		object("callbacks", f.Callbacks.keys()),
		object("metrics", []key{one("public", &f.PublicMetrics, flag)}),
		named("orgs", "the orgs by their names, each with keys such as region", func(r *reader, name string, v value) ([]key, func()) {
			d := orgDraft{Org: Org{Name: name, Concurrency: defaultConcurrency, Timeout: defaultTimeout}}
			r.checkName(v, name, orgName)
			return d.keys(), func() { f.Orgs = append(f.Orgs, d.Org) }
		}).must(),
	}
}

func (t *TLS) keys() []key {
	return []key{one("cert", &t.Cert, pathOf("file")).must(), one("key", &t.Key, pathOf("file")).must()}
}

func (o *Operator) keys() []key { return []key{one("key", &o.Key, keyHash).must()} }

func (b *Bounds) keys() []key {
	return append(b.Room.keys(),
		one("header", &b.Header, size(4<<10)),
		one("body", &b.Body, size(1<<10)),
		one("buffer", &b.Buffer, size(1<<10)),
		one("buffered", &b.Buffered, size(1<<10)),
	)
}

const mostCount = 1 << 31

func (b *Room) keys() []key {
	return []key{
		one("held", &b.Held, count(1, mostCount)),
		one("held_per_caller", &b.HeldPerCaller, count(1, mostCount)),
		one("queued", &b.Queued, count[int64](1, mostCount)),
		one("queued_per_caller", &b.QueuedPerCaller, count[int64](1, mostCount)),
		one("queued_bytes", &b.QueuedBytes, size(1<<10)),
		one("queued_bytes_per_caller", &b.QueuedBytesPerCaller, size(1<<10)),
	}
}

func (c *Callbacks) keys() []key {
	return []key{
		several("hosts", &c.Hosts, hostAndPort).must(),
		reference("secret", true, func(s string) { c.Secret = genesys.NewSecret(s) }).must(),
	}
}

var (
	orgName    = called("a name of 1 to 40 of a-z, 0-9 and -", regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`))
	personName = called("a name of 1 to 64 letters, digits, - . _", regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$`))
	pathPrefix = called("one segment such as /acme, or none", regexp.MustCompile(`^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,63}|none)$`))
	matchPath  = called("a path such as /api/v2/flows/, where * stands for one segment", regexp.MustCompile(`^(/[!-~]*)?$`))
)

// checkName says whether a name that is a key will do.
func (r *reader) checkName(v value, name string, k kind[string]) {
	if r == nil {
		return
	}
	if _, err := k.parse(name); err != nil {
		r.bad(value{field: v.field, at: r.where[v.field]}, "takes %s", k.takes)
	}
}

// orgDraft is an org while it is read.
type orgDraft struct {
	Org
	delivery headgate.Delivery
}

func (d *orgDraft) keys() []key {
	return []key{
		one("region", &d.Region, kind[string]{takes: "a region such as eu-west-1 or mypurecloud.ie", parse: d.region}),
		one("api_url", &d.APIURL, address),
		one("login_url", &d.LoginURL, address),
		one("mode", &d.PassThrough, kind[bool]{takes: "login or pass-through", parse: mode}),
		object("credentials", credentialKeys(&d.Credentials)),
		several("hosts", &d.Hosts, host),
		one("path", &d.Path, pathPrefix),
		one("default", &d.Default, flag),
		d.limitsKey(),
		d.deliveryKey(),
		one("max_wait", &d.MaxWait, span(time.Millisecond)),
		one("concurrency", &d.Concurrency, count(1, 100_000)),
		one("timeout", &d.Timeout, span(time.Millisecond)),
		object("bounds", d.Bounds.keys()),
		items("peak_hours", "a list of hours, each with zone, when and keep", func(r *reader, v value) ([]key, func()) {
			p := peakDraft{Peak: Peak{Urgent: DefaultUrgency - 1}}
			return p.keys(), func() {
				p.Hours = schedule.New(p.zone, p.spans...)
				d.Peaks = append(d.Peaks, p.Peak)
			}
		}),
		named("callers", "names, each with a key", func(r *reader, name string, v value) ([]key, func()) {
			c := Caller{Name: name, Weight: 1, Urgency: DefaultUrgency}
			r.checkName(v, name, personName)
			return c.keys(), func() { d.Callers = append(d.Callers, c) }
		}),
	}
}

func (d *orgDraft) region(s string) (string, error) {
	region, err := genesys.LookupRegion(s)
	if err != nil {
		return "", err
	}
	return region.Name, nil
}

func mode(s string) (bool, error) {
	switch s {
	case "login":
		return false, nil
	case "pass-through":
		return true, nil
	}
	return false, errKind
}

func (d *orgDraft) deliveryKey() key {
	k := one("delivery", &d.delivery, wordOf[headgate.Delivery]("at-least-once or at-most-once"))
	read := k.read
	k.read = func(r *reader, v value) {
		read(r, v)
		d.Delivery = &d.delivery
	}
	return k
}

func credentialKeys(c *genesys.Credentials) []key {
	return []key{
		reference("client_id", false, func(s string) { c.ClientID = s }).must(),
		reference("client_secret", true, func(s string) { c.ClientSecret = genesys.NewSecret(s) }).must(),
	}
}

// limitsKey is a list of limits, or learn.
func (d *orgDraft) limitsKey() key {
	k := items("limits", "a list of limits, each with a name and a rate, or "+wordLearn, func(r *reader, v value) ([]key, func()) {
		var l limitDraft
		return l.keys(), func() {
			if limit, ok := l.limit(r, v); ok {
				d.Limits = append(d.Limits, limit)
			}
		}
	})
	list := k.read
	k.read = func(r *reader, v value) {
		if w, ok := scalar(v.node); ok && w.text == wordLearn {
			d.Limits = []headgate.Limit{genesys.TokenLimit(0, 0)}
			return
		}
		list(r, v)
	}
	return k
}

// limitDraft is a limit while it is read.
type limitDraft struct {
	headgate.Limit
	rate, ceiling rate
}

func (l *limitDraft) keys() []key {
	return []key{
		one("name", &l.Name, called("the platform's name for the limit, such as "+genesys.LimitToken, regexp.MustCompile(`^[!-~]{1,128}$`))).must(),
		one("rate", &l.rate, rates(true)).must(),
		one("burst", &l.Burst, number(1, 1e6)),
		one("per", &l.Per, wordOf[headgate.Per]("token, client, org or path")),
		one("match", &l.Match, matchPath),
		one("learn", &l.Learn, wordOf[headgate.Learning]("on or off")),
		one("ceiling", &l.ceiling, rates(false)),
	}
}

// limit makes the limit, in which what is not said is as in [genesys.Limits].
func (l *limitDraft) limit(r *reader, v value) (limit headgate.Limit, ok bool) {
	given := func(name string) bool { return r.given(below(v.field, name)) }
	login := l.Name == genesys.LimitLogin
	if !given("match") {
		l.Match = "/api/"
		if login {
			l.Match = "/oauth/token"
		}
	}
	if login && !given("per") {
		l.Per = headgate.PerClient
	}
	off := l.Learn == headgate.LearnOff
	switch {
	case l.rate.learned && given("burst"):
		r.bad(r.field(below(v.field, "burst")), "goes with a rate, and the rate is to be learned")
		return limit, false
	case l.rate.learned && off:
		r.bad(r.field(below(v.field, "learn")), "is off, and the rate is to be learned")
		return limit, false
	case given("ceiling") && off:
		r.bad(r.field(below(v.field, "ceiling")), "goes with learn: on; without it nothing goes over the rate")
		return limit, false
	case l.rate.learned:
	case given("burst"):
		l.Rate = l.rate.perSecond()
	case off:
		l.Rate, l.Burst = headgate.Even(l.rate.n, l.rate.per)
	default:
		told := headgate.PerTime(l.rate.n, l.rate.per)
		l.Rate, l.Burst, l.Max, l.Window = told.Rate, told.Burst, told.Max, told.Window
	}
	l.Ceiling = l.ceiling.perSecond()
	if err := l.Validate(); err != nil {
		r.bad(v, "%v", err)
		return limit, false
	}
	return l.Limit, true
}

// peakDraft are peak hours while they are read.
type peakDraft struct {
	Peak
	zone  *time.Location
	spans []schedule.Span
}

const whenTakes = "days and hours such as Mon-Fri 09:00-12:00, or a list of them"

// mostSpans keeps the cost of asking for the time small.
const mostSpans = 50

func (p *peakDraft) keys() []key {
	return []key{
		one("zone", &p.zone, kind[*time.Location]{takes: "a time zone such as Europe/Paris", parse: schedule.ParseZone}).must(),
		key{name: "when", takes: whenTakes, read: p.readSpans}.must(),
		one("keep", &p.Keep, share).must(),
		one("urgent", &p.Urgent, count(0, 7)),
	}
}

// readSpans reads one span or a list. A comma is part of a span: Mon,Wed.
func (p *peakDraft) readSpans(r *reader, v value) {
	k := kind[schedule.Span]{takes: whenTakes, parse: schedule.ParseSpan}
	r.oneOrList(v, func(v value) {
		if s, ok := take(r, v, k); ok {
			p.spans = append(p.spans, s)
		}
	})
	if len(p.spans) > mostSpans {
		r.bad(v, "has %d hours: takes %d at most", len(p.spans), mostSpans)
	}
}

func (c *Caller) keys() []key {
	return []key{
		one("key", &c.Key, keyHash).must(),
		one("weight", &c.Weight, number(0.001, 1000)),
		one("urgency", &c.Urgency, count(0, 7)),
		one("most_urgent", &c.MostUrgent, count(0, 7)),
		one("held", &c.Held, count(1, mostCount)),
		one("queued", &c.Queued, count[int64](1, mostCount)),
		one("queued_bytes", &c.QueuedBytes, size(1<<10)),
	}
}

// reference is a key whose value is somewhere else, {env: NAME} or {file: PATH},
// or stands there itself.
func reference(name string, secret bool, set func(string)) key {
	takes := "{env: NAME}, {file: PATH} or the value itself"
	var env, file string
	under := []key{
		one("env", &env, called("the name of a variable of the environment", regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`))),
		one("file", &file, pathOf("file")),
	}
	return key{name: name, takes: takes, under: under, read: func(r *reader, v value) {
		if w, ok := scalar(v.node); ok {
			if strings.TrimSpace(w.text) == "" {
				r.bad(v, "is empty: takes %s", takes)
				return
			}
			if secret {
				r.inline = true
				r.warn(v, "is a secret in the file itself: whoever reads the file has it; {env: NAME} and {file: PATH} keep it elsewhere")
			}
			set(w.text)
			return
		}
		env, file = "", ""
		before := len(r.problems)
		r.hide = secret // what is in the wrong place may be the secret
		r.mapping(v, under)
		r.hide = false
		switch {
		case len(r.problems) > before:
		case (env == "") == (file == ""):
			r.bad(v, "takes either env or file")
		case env != "":
			r.fromEnv(v, env, set)
		default:
			r.fromFile(v, file, secret, set)
		}
	}}
}

func (r *reader) fromEnv(v value, name string, set func(string)) {
	text := ""
	if r.sources.Env != nil {
		text = strings.TrimSpace(r.sources.Env(name))
	}
	if text == "" {
		r.bad(v, "the variable %s is not set, or is empty", name)
		return
	}
	set(text)
}

func (r *reader) fromFile(v value, path string, secret bool, set func(string)) {
	path = r.path(path)
	content, err := r.readFile(path)
	if err != nil {
		r.bad(v, "%v", err)
		return
	}
	text := strings.TrimRight(string(content), "\r\n")
	if strings.TrimSpace(text) == "" {
		r.bad(v, "the file %s is empty", path)
		return
	}
	if secret {
		v.field = path
		r.files = append(r.files, v)
	}
	set(text)
}

// path resolves a path of the file: it is seen from the file's own folder.
func (r *reader) path(p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(filepath.Dir(r.name), p)
}

// CheckPerson says what is wrong with the name of a caller or an operator, nil if
// it will do.
func CheckPerson(name string) error {
	if _, err := personName.parse(name); err != nil {
		return errors.New("takes " + personName.takes)
	}
	return nil
}
