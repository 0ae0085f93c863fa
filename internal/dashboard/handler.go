package dashboard

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed assets
var files embed.FS

// The page has all it needs in itself: its script and style come from files
// beside it, nothing comes from another host, and the script can't make HTML
// of a text even by mistake.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

const maxBody = 8 << 10 // bytes of a change

// asset is one file of the page.
type asset struct {
	content []byte
	kind    string // its Content-Type
	tag     string
}

var kinds = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// loadAssets reads the embedded files that a browser may ask for, by their
// paths within assets.
func loadAssets() map[string]asset {
	assets := map[string]asset{}
	err := fs.WalkDir(files, "assets", func(name string, d fs.DirEntry, err error) error {
		kind := kinds[path.Ext(name)]
		if err != nil || kind == "" { // folders, the licence
			return err
		}
		content, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		assets[strings.TrimPrefix(name, "assets/")] = asset{content, kind, `"` + hex.EncodeToString(sum[:12]) + `"`}
		return nil
	})
	if err != nil {
		panic("dashboard: reading what is embedded: " + err.Error())
	}
	return assets
}

// Handler serves, under the prefix:
//
//	GET  /               the page
//	GET  /assets/…       its script, style and plots
//	GET  /events?org=…   server-sent events: the history of an org, then each view
//	POST /resolve        {"id": …, "action": "send-again" or "give-up"}
//	POST /cancel         {"id": …}
//	POST /pause, /resume {"org": …}
//
// A change takes application/json only, which no form of another site can
// send, and answers 204, or application/problem+json with the Source's words.
// Put authentication and [http.CrossOriginProtection] in front of it.
func (p *Page) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+p.cfg.Prefix+"/{$}", func(w http.ResponseWriter, r *http.Request) { p.asset(w, r, "index.html") })
	mux.HandleFunc("GET "+p.cfg.Prefix+"/assets/{name...}", func(w http.ResponseWriter, r *http.Request) { p.asset(w, r, r.PathValue("name")) })
	mux.HandleFunc("GET "+p.cfg.Prefix+"/events", p.events)
	mux.HandleFunc("POST "+p.cfg.Prefix+"/resolve", p.change("resolve", func(ctx context.Context, c change) error {
		if c.Action != SendAgain && c.Action != GiveUp {
			return fieldError(fmt.Sprintf("action must be %q or %q", SendAgain, GiveUp))
		}
		return p.cfg.Source.Resolve(ctx, c.ID, c.Action)
	}))
	mux.HandleFunc("POST "+p.cfg.Prefix+"/cancel", p.change("cancel", func(ctx context.Context, c change) error { return p.cfg.Source.Cancel(ctx, c.ID) }))
	mux.HandleFunc("POST "+p.cfg.Prefix+"/pause", p.change("pause", func(ctx context.Context, c change) error { return p.cfg.Source.Pause(ctx, c.Org) }))
	mux.HandleFunc("POST "+p.cfg.Prefix+"/resume", p.change("resume", func(ctx context.Context, c change) error { return p.cfg.Source.Resume(ctx, c.Org) }))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentSecurityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		mux.ServeHTTP(w, r)
	})
}

func (p *Page) asset(w http.ResponseWriter, r *http.Request, name string) {
	a, ok := p.assets[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("ETag", a.tag)
	h.Set("Cache-Control", "no-cache") // asked for again, and answered 304: another version's script must not meet this one's events
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.content))
}

// change is the body of a POST.
type change struct {
	ID     string `json:"id"`
	Action string `json:"action"`
	Org    string `json:"org"`
}

// fieldError is what is wrong with a change, in words.
type fieldError string

func (e fieldError) Error() string { return string(e) }

// change answers a POST by what do says.
func (p *Page) change(name string, do func(context.Context, change) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			problem(w, http.StatusUnsupportedMediaType, "the body must be application/json")
			return
		}
		c, err := readChange(http.MaxBytesReader(w, r.Body, maxBody), name == "pause" || name == "resume")
		if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
			problem(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", tooLarge.Limit))
			return
		}
		if err == nil {
			err = do(r.Context(), c)
		}
		log := p.cfg.Logger.With(slog.String("change", name), slog.String("org", c.Org), slog.String("execution", c.ID), slog.String("action", c.Action))
		if err != nil {
			log.Warn("a change asked for on the page failed", slog.Any("error", err))
			problem(w, status(err), err.Error())
			return
		}
		log.Info("a change was made on the page")
		w.WriteHeader(http.StatusNoContent)
	}
}

func readChange(body io.Reader, ofOrg bool) (change, error) {
	var c change
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return change{}, err
		}
		return change{}, fieldError("the body must be one JSON object with id, action or org: " + err.Error())
	}
	if _, err := d.Token(); err != io.EOF {
		return change{}, fieldError("the body must be one JSON object and nothing else")
	}
	switch {
	case ofOrg && c.Org == "":
		return change{}, fieldError("org must name one")
	case !ofOrg && c.ID == "":
		return change{}, fieldError("id must name an execution")
	}
	return c, nil
}

func status(err error) int {
	_, field := errors.AsType[fieldError](err)
	switch {
	case field:
		return http.StatusBadRequest
	case errors.Is(err, ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, ErrConflict):
		return http.StatusConflict
	default:
		return http.StatusInternalServerError
	}
}

// problem answers as RFC 9457 says.
func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(encode(map[string]any{"title": http.StatusText(status), "status": status, "detail": detail})) // who has gone does not read it
}
