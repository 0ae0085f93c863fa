package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serve serves the gateway on listeners until ctx ends, and then drains it:
// nothing new is taken, what is on the wire comes to its end, calls that are held
// may go on for the file's drain time and are refused then, and what is queued
// stays. It returns when all that is done. The second ctx cuts it short.
func (g *Gateway) Serve(ctx, abort context.Context, listeners []net.Listener, certificate *tls.Config) error {
	server := &http.Server{
		Handler:           g,
		TLSConfig:         certificate,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    int(g.file().Bounds.Header),
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
		BaseContext:       func(net.Listener) context.Context { return g.do },
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	failed := make(chan error, len(listeners))
	var serving sync.WaitGroup
	for _, l := range listeners {
		serving.Go(func() {
			var err error
			if certificate != nil {
				err = server.ServeTLS(l, "", "")
			} else {
				err = server.Serve(l)
			}
			if !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		})
	}
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	g.log.Info("draining", "for", g.file().Drain)
	g.drainServer(abort, server)
	serving.Wait()
	return err
}

// drainServer ends the server, in order.
func (g *Gateway) drainServer(abort context.Context, server *http.Server) {
	patience, cancel := context.WithTimeout(abort, g.file().Drain)
	defer cancel()
	over := make(chan struct{})
	go func() {
		defer close(over)
		g.Drain(patience)
	}()
	if server.Shutdown(patience) != nil {
		// Those who still wait for a permit hear that they were not sent;
		// those on the wire have a moment more.
		g.Refuse()
		moment, cancel := context.WithTimeout(abort, 5*time.Second)
		defer cancel()
		server.Shutdown(moment)
		server.Close()
	}
	<-over
}
