package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/headgate/headgate/internal/keys"
)

// sessionCookie holds an operator's session of the page.
const (
	sessionCookie = "headgate_session"
	sessionLife   = 12 * time.Hour
)

// serveOwn serves what is the gateway's own: executions, orgs, the page.
func (g *Gateway) serveOwn(w http.ResponseWriter, r *http.Request, path string) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if name, ok := strings.CutPrefix(path, problemsPath); ok {
		if allow(w, r, http.MethodGet, http.MethodHead) {
			explain(w, name)
		}
		return
	}
	if err := g.crossOrigin.Check(r); err != nil {
		forbidden.problem("the request comes from a page of another site").write(w)
		return
	}
	switch path {
	case sessionPath:
		g.session(w, r)
		return
	case loginPagePath:
		g.loginPage(w, r)
		return
	}
	who, p := g.operatorOf(r)
	if p != nil {
		if r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html") {
			http.Redirect(w, r, loginPagePath, http.StatusSeeOther)
			return
		}
		p.write(w)
		return
	}
	if rest, ok := strings.CutPrefix(path, apiV1); ok {
		g.serveAPI(w, r, who, rest)
		return
	}
	if who.operator == "" {
		forbidden.problem("the page is for operators: the file names them and their keys").write(w)
		return
	}
	g.pageHTTP.ServeHTTP(w, r.WithContext(withIdentity(r.Context(), who)))
}

// serveAPI serves what is below /headgate/v1/.
func (g *Gateway) serveAPI(w http.ResponseWriter, r *http.Request, who identity, path string) {
	switch first, rest, _ := strings.Cut(path, "/"); first {
	case "executions":
		g.serveExecutions(w, r, who, rest)
	case "orgs":
		g.serveOrgs(w, r, who, rest)
	default:
		notFound.problem("there are " + apiV1 + "executions and " + apiV1 + "orgs").write(w)
	}
}

// serveOrgs lists orgs and their limits, and pauses and resumes one.
func (g *Gateway) serveOrgs(w http.ResponseWriter, r *http.Request, who identity, path string) {
	name, action, _ := strings.Cut(path, "/")
	if name == "" {
		if allow(w, r, http.MethodGet, http.MethodHead) {
			list := []orgView{}
			for _, o := range g.setting().orgs {
				if who.sees(o) {
					list = append(list, o.status())
				}
			}
			writeJSON(w, http.StatusOK, map[string]any{"orgs": list})
		}
		return
	}
	o := g.setting().org(name)
	if o == nil || !who.sees(o) {
		unknownOrg.problem("there is no org with this name").write(w)
		return
	}
	switch action {
	case "":
		if allow(w, r, http.MethodGet, http.MethodHead) {
			writeJSON(w, http.StatusOK, o.status())
		}
	case "pause", "resume":
		switch {
		case !allow(w, r, http.MethodPost):
		case who.operator == "":
			forbidden.problem("only operators pause and resume").write(w)
		default:
			if p := o.pause(action == "pause", who.operator); p != nil {
				p.write(w)
				return
			}
			writeJSON(w, http.StatusOK, o.status())
		}
	default:
		notFound.problem("an org has /pause and /resume").write(w)
	}
}

const (
	sessionPath   = "/headgate/session"
	loginPagePath = "/headgate/login"
)

// session begins a session of the page for an operator's key, and ends it.
func (g *Gateway) session(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodPost, http.MethodDelete) {
		return
	}
	cookie := &http.Cookie{
		Name: sessionCookie, Path: "/headgate/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || g.file().TLSInFront, MaxAge: -1,
	}
	if r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(w, r.Body, 4096)
		s := g.setting()
		name, ok := s.operatorBy(credentials{bearer: strings.TrimSpace(r.PostFormValue("key"))})
		if !ok {
			http.Redirect(w, r, loginPagePath+"?wrong", http.StatusSeeOther)
			return
		}
		cookie.MaxAge = int(sessionLife.Seconds())
		cookie.Value = g.issuer.Issue(keys.Claims{Caller: name, Key: s.operatorKey(name)}, keys.ForPage, time.Now(), sessionLife)
		g.log.Info("an operator logged in", "operator", name)
	}
	http.SetCookie(w, cookie)
	http.Redirect(w, r, pagePrefix, http.StatusSeeOther)
}

// loginPage asks for an operator's key.
func (g *Gateway) loginPage(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'sha256-"+loginStyleHash()+"'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("Cache-Control", "no-store")
	wrong := ""
	if r.URL.RawQuery == "wrong" {
		wrong = `<p role="alert">That is no operator's key.</p>`
	}
	fmt.Fprintf(w, loginHTML, loginStyle, wrong, sessionPath)
}

// healthz says that the process is there.
func (g *Gateway) healthz(w http.ResponseWriter, r *http.Request) {
	if allow(w, r, http.MethodGet, http.MethodHead) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok")
	}
}

// readyz says whether calls are taken, and what is wrong with which org. An org
// in trouble does not make the gateway unready: the others are served.
func (g *Gateway) readyz(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	out := struct {
		Ready bool              `json:"ready"`
		Orgs  map[string]string `json:"orgs"`
	}{!g.isDraining(), map[string]string{}}
	for _, o := range g.setting().orgs {
		state := "ok"
		if trouble := o.trouble(); trouble != "" {
			state = "trouble" // what it is, operators see on the page
		}
		out.Orgs[o.name] = state
	}
	if g.setting().keyed() {
		out.Orgs = nil // their names are nobody's business
	}
	status := http.StatusOK
	if !out.Ready {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(out)
}
