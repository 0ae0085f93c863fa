package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// errNoRedis says that there is none on this machine.
var errNoRedis = errors.New("no redis-server is installed")

// redisServer is a Redis of the contest's own: on loopback, in a directory of
// its own, without persistence.
type redisServer struct {
	addr, version string
	dir           string
	guard         *exec.Cmd
	alive         *os.File // closing it ends the server
}

// startRedis starts one. The server ends when stop is called, and also when this
// process is killed: it runs under a shell that ends it when its own standard
// input does.
func startRedis(ctx context.Context) (*redisServer, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errNoRedis
	}
	version, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("asking redis-server for its version: %w", err)
	}
	r := &redisServer{version: field(string(version), "v=")}
	// Another program may take the port before Redis does; the ping tells.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("looking for a free port: %w", err)
	}
	r.addr = ln.Addr().String()
	port := ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	if r.dir, err = os.MkdirTemp("", "contest-redis-"); err != nil {
		return nil, err
	}
	in, alive, err := os.Pipe()
	if err != nil {
		os.RemoveAll(r.dir)
		return nil, err
	}
	defer in.Close()
	r.alive = alive
	r.guard = exec.Command("sh", "-c", `trap "" INT; "$@" >/dev/null 2>&1 & cat >/dev/null; kill $!; wait; rmdir "$DIR"`, "sh",
		path, "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--save", "", "--appendonly", "no", "--dir", r.dir)
	r.guard.Env = append(os.Environ(), "DIR="+r.dir)
	r.guard.Stdin = in
	if err := r.guard.Start(); err != nil {
		alive.Close()
		os.RemoveAll(r.dir)
		return nil, fmt.Errorf("starting redis-server: %w", err)
	}
	db := redis.NewClient(&redis.Options{Addr: r.addr})
	defer db.Close()
	for begin := time.Now(); ; {
		err := db.Ping(ctx).Err()
		if err == nil {
			return r, nil
		}
		if ctx.Err() != nil || time.Since(begin) > 10*time.Second {
			r.stop()
			return nil, fmt.Errorf("waiting for redis-server at %s: %w", r.addr, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (r *redisServer) stop() {
	r.alive.Close()
	r.guard.Wait()
	os.RemoveAll(r.dir)
}

// field is the word in text that begins with name, without it.
func field(text, name string) string {
	for w := range strings.FieldsSeq(text) {
		if v, ok := strings.CutPrefix(w, name); ok {
			return v
		}
	}
	return "unknown"
}
