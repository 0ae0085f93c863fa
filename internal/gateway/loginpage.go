package gateway

import (
	"crypto/sha256"
	"encoding/base64"
	"sync"
)

// The page that asks for an operator's key. It has no script.
const (
	loginStyle = `:root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;max-width:24rem;margin:15vh auto;padding:0 1rem}label{display:block;margin-bottom:.25rem}input,button{font:inherit;padding:.5rem;width:100%;box-sizing:border-box;margin-bottom:1rem}p[role=alert]{border-left:4px solid #c33;padding-left:.75rem}`
	loginHTML  = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>headgate</title><style>%s</style></head>
<body><main><h1>headgate</h1>%s
<form method="post" action="%s"><label for="key">An operator's key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<button>Open the page</button></form></main></body></html>
`
)

// loginStyleHash lets the style in, and no other.
var loginStyleHash = sync.OnceValue(func() string {
	sum := sha256.Sum256([]byte(loginStyle))
	return base64.StdEncoding.EncodeToString(sum[:])
})
