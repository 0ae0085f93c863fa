package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/headgate/headgate/internal/keys"
)

// Each file has exactly these problems, in this order, each as "line: field:
// message" where the message is the beginning of it.
func TestProblems(t *testing.T) {
	const rest = "\norgs: {acme: " + login + "}}\n"
	aKey, _ := keys.New()
	crm := "callers: {crm: {key: " + hash("2") + "}}"
	for _, c := range []struct {
		what, text string
		want       []string
	}{
		{"nothing", "", []string{"1: is empty: takes at least orgs"}},
		{"comments", "# nothing\n---\n", []string{"1: is empty: takes at least orgs"}},
		{"no mapping", "5", []string{"1: is a single value: takes keys such as listen: …"}},
		{"a list", "\n- a\n", []string{"1: is a list: takes keys"}},
		{"no orgs", "keep: 5", []string{"1: orgs: is missing: takes the orgs by their names"}},
		{"empty orgs", "orgs:", []string{"1: orgs: is empty: takes the orgs"}},
		{"no org in it", "\norgs: {}", []string{"2: orgs: is empty: takes the orgs"}},
		{"no YAML", "orgs: {a: b", []string{"1: is not YAML: "}},
		{"no YAML further down", "keep: 5\norgs: 'x\n", []string{"2: is not YAML: "}},
		{"several documents", "keep: 5\n---\nkeep: 6\n", []string{"3: has several documents: takes one"}},
		{"deep", "orgs: " + strings.Repeat("[", 1000), []string{"1: is nested deeper"}},
		{"deep in a line", "orgs: \n" + strings.Repeat("- ", 1000), []string{"2: is nested deeper"}},

		{"unknown", "lisen: x" + rest, []string{"1: lisen: unknown key: did you mean listen?"}},
		{"unknown, with a hyphen", "tls-in-front: true" + rest, []string{"1: tls-in-front: unknown key: did you mean tls_in_front?"}},
		{"unknown, like nothing", "colour: x" + rest, []string{"1: colour: unknown key: there are listen, data, tls,"}},
		{"unknown below", "metrics:\n  publik: true" + rest, []string{"2: metrics.publik: unknown key: did you mean public?"}},
		{"no key", "5: x" + rest, []string{"1: 5: unknown key"}},
		{"a key that is a list", "? [a]\n: x" + rest, []string{"2: is not YAML: found an invalid key"}},
		{"twice", "keep: 5\ndrain: 5\nkeep: 5" + rest, []string{"3: keep: is there twice, the first time in line 1"}},
		{"empty", "keep:\nlisten: ''" + rest, []string{"1: keep: is empty: takes a time", "2: listen: is empty: takes an address"}},
		{"merged", "<<: {keep: 5}" + rest, []string{"1: a key must be a word"}},
		{"anchors", "keep: &a 5\ndrain: *a\ndata: !!str x" + rest, []string{"1: keep: is an anchor or an alias", "2: drain: is an anchor or an alias", "3: data: is a tag"}},
		{"other kinds", "keep: [5]\ndrain: {a: 5}\nmetrics: 5\noperators: [a]" + rest, []string{"1: keep: is a list: takes a time", "2: drain: is a mapping: takes a time", "3: metrics: is a single value: takes keys such as public", "4: operators: is a list: takes names"}},

		{"times", "keep: soon\ndrain: -5\nmax_wait: 0" + rest, []string{`1: keep: "soon": takes a time such as 300ms, 5m, 7d or 5 (seconds), at least 1s`, `2: drain: "-5": takes a time`, `3: max_wait: "0": takes a time`}},
		{"times, too long", "keep: 99999d\ndrain: 1e300\nmax_wait: 70000d9h" + rest, []string{`1: keep: "99999d"`, `2: drain: "1e300"`, `3: max_wait: "70000d9h"`}},
		{"sizes", "bounds: {body: 1ZiB, header: 1, buffer: -1MiB, buffered: 1e30GiB}" + rest, []string{`1: bounds.body: "1ZiB": takes a size`, `1: bounds.header: "1": takes a size such as 64KiB, 32MiB, 4GiB, 512kB or bytes, at least 4096`, `1: bounds.buffer: "-1MiB"`, `1: bounds.buffered: "1e30GiB"`}},
		{"counts", "bounds: {held: 0, queued: 1.5, held_per_caller: '5', queued_per_caller: many}" + rest, []string{`1: bounds.held: "0": takes a whole number from 1`, `1: bounds.queued: "1.5"`, "1: bounds.held_per_caller: is a text in quotes", `1: bounds.queued_per_caller: "many"`}},
		{"flags", "tls_in_front: yes\nmetrics: {public: 'true'}" + rest, []string{`1: tls_in_front: "yes": takes true or false`, "2: metrics.public: is a text in quotes"}},
		{"bounds of one above all", "bounds: {held: 5, held_per_caller: 6}" + rest, []string{"1: bounds.held_per_caller: 6 is above held, which is 5"}},
		{"bounds of bodies", "bounds:\n  buffered: 1MiB\n  buffer: 2MiB\n  body: 1MiB" + rest, []string{"3: bounds.buffer: 2097152 is above buffered", "3: bounds.buffer: 2097152 is above body"}},

		{"listen", "listen: [127.0.0.1, 'http://x:1', '127.0.0.1:70000', '127.0.0.1:1', '127.0.0.1:1']" + rest, []string{"1: listen: 127.0.0.1:1 is there twice", `1: listen[0]: "127.0.0.1": takes an address`, `1: listen[1]: "http://x:1"`, `1: listen[2]: "127.0.0.1:70000"`}},
		{"foreign", "listen: :8080" + rest, []string{
			"1: listen: :8080 is reached by others, who would send their keys in the clear",
			"1: operators: is missing: others reach :8080, and no key guards the page",
			"2: orgs.acme.callers: is missing: others reach :8080",
		}},
		{"foreign, with TLS in front", "listen: gw.example.com:443\ntls_in_front: true" + rest, []string{"1: operators: is missing", "3: orgs.acme.callers: is missing"}},
		{"foreign, with keys", "listen: 0.0.0.0:8080\norgs: {acme: " + login + ", " + crm + "}}", []string{"1: listen: 0.0.0.0:8080 is reached by others"}},
		{"foreign, all in order", "listen: 0.0.0.0:8080\ntls_in_front: true\norgs: {acme: " + login + ", " + crm + "}}", nil},
		{"foreign, tokens pass through", "listen: 0.0.0.0:8080\ntls_in_front: true\norgs: {acme: {region: eu-west-1, mode: pass-through}}", []string{"1: operators: is missing"}},
		{"tls without files", "tls: {cert: c, key: k}" + rest, []string{"1: tls.cert: the file gw/c does not exist", "1: tls.key: the file gw/k does not exist"}},
		{"tls without key", "tls: {cert: c}" + rest, []string{"1: tls.key: is missing: takes the path of a file"}},
		{"tls with nonsense", "tls: {cert: cert.pem, key: key.pem}" + rest, []string{"1: tls: the certificate and its key can't be used"}},

		{"operators", "operators: {'a b': {key: " + hash("1") + "}, ada: {}, bob: {key: " + hash("1") + "}}" + rest, []string{"1: operators.a b: takes a name of 1 to 64", "1: operators.ada.key: is missing: takes sha256: and 64", "1: operators.bob.key: is the key of operators.a b too"}},
		{"callbacks", "callbacks: {secret: {env: SECRET}}" + rest, []string{"1: callbacks.hosts: is missing"}},
		{"callbacks without a secret", "callbacks: {hosts: 'https://h'}" + rest, []string{"1: callbacks.secret: is missing: takes {env: NAME}", `1: callbacks.hosts: "https://h": takes the name of a host`}},

		{"names of orgs", "orgs:\n  Acme: " + login + "}\n  a_b: " + login + "}\n  nul:\n  x: 5", []string{"2: orgs.Acme: takes a name of 1 to 40", "3: orgs.a_b: takes a name", "4: orgs.nul: is empty: takes keys such as region", "5: orgs.x: is a single value"}},
		{"region and addresses", "orgs:\n  a: {credentials: {client_id: x, client_secret: {env: SECRET}}}\n  b: " + login + ", api_url: https://x}\n  c: {mode: pass-through, api_url: https://x}\n  d: {mode: pass-through, region: Europe/Paris}", []string{
			"2: orgs.a.region: is missing", "3: orgs.b.region: contradicts api_url", "4: orgs.c: api_url and login_url go together",
			`5: orgs.d.region: there is no API region "Europe/Paris"`,
		}},
		{"addresses", "orgs:\n  a: {mode: pass-through, api_url: 'https://u:not-shown@h', login_url: 'https://h?not-shown'}", []string{"2: orgs.a.api_url: takes an address such as", "2: orgs.a.login_url: takes an address"}},
		{"mode", "orgs:\n  a: {region: eu-west-1, mode: proxy, credentials: {client_id: x, client_secret: {env: SECRET}}}\n  b: " + login + ", mode: pass-through}\n  c: {region: eu-west-1}", []string{`2: orgs.a.mode: "proxy": takes login or pass-through`, "3: orgs.b.credentials: contradicts mode: pass-through", "4: orgs.c.credentials: is missing"}},
		{"references", "orgs:\n  a: {region: eu-west-1, credentials: {client_id: {env: NONE}, client_secret: {file: none}}}\n  b: {region: eu-west-1, credentials: {client_id: {}, client_secret: {env: A, file: b}}}\n  c: {region: eu-west-1, credentials: {client_id: '', client_secret: {file: blank}}}\n  d: {region: eu-west-1, credentials: {client_id: [x]}}", []string{
			"2: orgs.a.credentials.client_id: the variable NONE is not set", "2: orgs.a.credentials.client_secret: the file gw/none does not exist",
			"3: orgs.b.credentials.client_id: takes either env or file", "3: orgs.b.credentials.client_secret: takes either env or file",
			"4: orgs.c.credentials.client_id: is empty", "4: orgs.c.credentials.client_secret: the file gw/blank is empty",
			"5: orgs.d.credentials.client_secret: is missing", "5: orgs.d.credentials.client_id: is a list",
		}},
		{"secrets in the wrong place", "orgs:\n  a: {region: eu-west-1, credentials: {client_id: x, client_secret: {not-shown}}}\n  b: {region: eu-west-1, credentials: {client_id: x, client_secret: {env: not-shown}}}\n  c: {region: eu-west-1, credentials: {client_id: x, client_secret: {envy: not-shown}}, callers: {crm: {key: not-shown}}}", []string{
			"2: orgs.a.credentials.client_secret.…: unknown key: there are env, file", "3: orgs.b.credentials.client_secret.env: takes the name of a variable",
			"4: orgs.c.credentials.client_secret.…: unknown key", "4: orgs.c.callers.crm.key: takes sha256:",
		}},
		{"the key itself", "operators: {ada: {key: " + aKey + "}}" + rest, []string{"1: operators.ada.key: is the key itself, which now counts as known to others"}},

		{"paths", "orgs:\n  api: " + login + "}\n  a: " + login + ", path: /HeadGate}\n  b: " + login + ", path: a/b}\n  c: " + login + ", path: /x}\n  d: " + login + ", path: /X}\n  e: " + login + ", path: none}\n  f: " + login + ", path: /..}", []string{
			"2: orgs.api.path: /api is the gateway's own", "3: orgs.a.path: /HeadGate is the gateway's own", `4: orgs.b.path: "a/b": takes one segment`,
			"6: orgs.d.path: /X is the path of orgs.c too", "7: orgs.e: nothing leads to it", `8: orgs.f.path: "/..": takes one segment`,
		}},
		{"a path like another's name", "orgs:\n  a: " + login + "}\n  b: " + login + ", path: /a}", []string{"3: orgs.b.path: /a is the path of orgs.a too"}},
		{"hosts", "orgs:\n  a: " + login + ", hosts: [h.example, H.example]}\n  b: " + login + ", hosts: h.example}\n  c: " + login + ", hosts: ['h:1', -x]}", []string{
			"2: orgs.a.hosts[1]: h.example is a host of orgs.a too", "3: orgs.b.hosts: h.example is a host of orgs.a too", `4: orgs.c.hosts[0]: "h:1": takes the name`, `4: orgs.c.hosts[1]: "-x"`,
		}},
		{"defaults", "orgs:\n  a: " + login + ", default: true}\n  b: " + login + ", default: true}", []string{"3: orgs.b.default: orgs.a is the default too"}},

		{"limits", "orgs:\n  a: " + login + ", limits: [\n    {name: a, rate: 5/fortnight, brust: 5},\n    {rate: 300/min},\n    {name: b, rate: 300/min, learn: off, ceiling: 5/s},\n    {name: b, rate: learn, burst: 5},\n    x,\n    {name: c, rate: learn, learn: off},\n    {name: d, rate: 5/s, burst: 0.5, per: user, match: api, learn: some}]}", []string{
			`3: orgs.a.limits[0].rate: "5/fortnight": takes a rate such as 50/s or 300/min, or learn`, "3: orgs.a.limits[0].brust: unknown key: did you mean burst?",
			"4: orgs.a.limits[1].name: is missing", "5: orgs.a.limits[2].ceiling: goes with learn: on", "6: orgs.a.limits[3].burst: goes with a rate",
			"7: orgs.a.limits[4]: is a single value", "8: orgs.a.limits[5].learn: is off",
			`9: orgs.a.limits[6].burst: "0.5"`, `9: orgs.a.limits[6].per: "user": takes token, client, org or path`, `9: orgs.a.limits[6].match: "api"`, `9: orgs.a.limits[6].learn: "some": takes on or off`,
		}},
		{"no limits", "orgs:\n  a: " + login + ", limits: []}\n  b: " + login + ", limits: none}", []string{"2: orgs.a.limits: is a list: takes a list of limits", "3: orgs.b.limits: is a single value: takes a list"}},
		{"limits twice", "orgs:\n  a: " + login + ", limits: [{name: x, rate: 5}, {name: x, rate: 6}]}", []string{"2: orgs.a.limits[1].name: x is there twice"}},

		{"peak hours", "orgs:\n  a: " + login + ", peak_hours: [\n    {zone: Europe/Lyon, when: [Mon-Fry 9-12, 5, Mon 9-9], keep: 130%, urgent: 8},\n    {when: []}]}", []string{
			`3: orgs.a.peak_hours[0].zone: "Europe/Lyon" is not a time zone`, `3: orgs.a.peak_hours[0].when[0]: "Mon-Fry" is not a day`, `3: orgs.a.peak_hours[0].when[1]: "5" is not hours`,
			`3: orgs.a.peak_hours[0].when[2]: "9-9" has no length`, `3: orgs.a.peak_hours[0].keep: "130%": takes a share`, `3: orgs.a.peak_hours[0].urgent: "8": takes a whole number from 0 to 7`,
			"4: orgs.a.peak_hours[1].when: is a list", "4: orgs.a.peak_hours[1].zone: is missing", "4: orgs.a.peak_hours[1].keep: is missing",
		}},
		{"too many peak hours", "orgs:\n  a: " + login + ", peak_hours: [{zone: UTC, keep: 1%, when: [" + strings.Repeat("Mon 1-2, ", 51) + "]}]}", []string{"2: orgs.a.peak_hours[0].when: has 51 hours: takes 50"}},

		{"callers", "orgs:\n  a: " + login + ", callers: {crm: {key: " + hash("1") + ", weight: 0, urgency: 1, most_urgent: 2}, 'x/y': {key: " + hash("2") + "}, nul: }}\n  b: " + login + ", callers: {crm: {key: " + hash("1") + ", held: 20000}}}", []string{
			`2: orgs.a.callers.crm.weight: "0": takes a number from 0.001 to 1000`, "2: orgs.a.callers.crm.urgency: 1 is more urgent than most_urgent, which is 2",
			"2: orgs.a.callers.x/y: takes a name", "2: orgs.a.callers.nul: is empty",
			"3: orgs.b.callers.crm.key: is the key of orgs.a.callers.crm too", "3: orgs.b.callers.crm.held: 20000 is above that of the org, which is 10000",
		}},
		{"a bound of the org's callers", "orgs:\n  a: " + login + ", " + crm + ", bounds: {held: 5, held_per_caller: 6}}", []string{"2: orgs.a.bounds.held_per_caller: 6 is above held"}},
		{"an operator's key", "operators: {ada: {key: " + hash("2") + "}}\norgs: {acme: " + login + ", " + crm + "}}", []string{"2: orgs.acme.callers.crm.key: is the key of operators.ada too"}},
		{"delivery and more", "orgs:\n  a: " + login + ", delivery: twice, concurrency: 0, timeout: 0, max_wait: x, bounds: {body: 5, held: 5, held_per_caller: 6}}", []string{
			`2: orgs.a.delivery: "twice": takes at-least-once or at-most-once`, `2: orgs.a.concurrency: "0"`, `2: orgs.a.timeout: "0"`, `2: orgs.a.max_wait: "x"`,
			"2: orgs.a.bounds.body: unknown key", "2: orgs.a.bounds.held_per_caller: 6 is above held",
		}},
	} {
		files := map[string]string{"gw/cert.pem": "x", "gw/key.pem": "y", "gw/blank": " \n"}
		f, _, err := Parse("gw/f.yaml", []byte(c.text), sources(acme, files))
		problems, _ := errors.AsType[Errors](err)
		if err != nil && len(problems) == 0 || (err == nil) != (f != nil) {
			t.Fatalf("%s: %v, %v", c.what, f, err)
		}
		ok := len(problems) == len(c.want)
		for i := 0; ok && i < len(c.want); i++ {
			ok = strings.HasPrefix(problems[i].String(), "gw/f.yaml:"+c.want[i])
		}
		if !ok || strings.Contains(problems.Error(), "not-shown") || strings.Contains(problems.Error(), "hg_") {
			t.Errorf("%s:\ngot\n%s\nwant\n%s", c.what, problems, strings.Join(c.want, "\n"))
		}
	}
}
