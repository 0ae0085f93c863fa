// Package browser tests the gateway's page in a real Chromium, without a
// window. It is a module of its own so that what drives the browser is no
// dependency of the product. It has nothing but tests:
//
//	go test ./...
//	go test -run Pictures -pictures DIR ./...
//
// The second command leaves screenshots in DIR. Without a Chromium on the PATH
// the tests are skipped, unless $CI is set: then they fail.
package browser
