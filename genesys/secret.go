package genesys

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// Secret is a client secret. It shows itself as [redacted] to fmt with any
// verb, to log/slog and to JSON, also from inside a struct. The zero value is
// no secret.
type Secret struct {
	// A function, because nothing that walks through fields prints what one
	// closes over.
	reveal func() string
}

// NewSecret wraps s.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{func() string { return s }}
}

// Reveal returns the secret itself.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

const redacted = "[redacted]"

// String returns [redacted], or nothing for no secret.
func (s Secret) String() string {
	if s.reveal == nil {
		return ""
	}
	return redacted
}

// GoString is String.
func (s Secret) GoString() string { return s.String() }

// Format writes String for every verb.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// LogValue returns String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns String: a configuration that is written out holds no
// secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes text as the secret.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}

// Credentials are an OAuth client of the grant type client credentials.
type Credentials struct {
	// ClientID is the id of the client. It is no secret: messages show it.
	ClientID string
	// ClientSecret is its secret; see [NewSecret].
	ClientSecret Secret
	// Region is where the client's org lives, in any form that
	// [LookupRegion] knows.
	Region string
}

// The variables that [CredentialsFromEnv] reads, as the Terraform provider
// and the platform's own tools do.
const (
	EnvClientID     = "GENESYSCLOUD_OAUTHCLIENT_ID"
	EnvClientSecret = "GENESYSCLOUD_OAUTHCLIENT_SECRET"
	EnvRegion       = "GENESYSCLOUD_REGION"
)

// EnvError names the variables of the environment that are not set or empty.
type EnvError struct {
	Missing []string
}

// Error names them.
func (e *EnvError) Error() string {
	return "no credentials: the environment lacks " + strings.Join(e.Missing, ", ")
}

// CredentialsFromEnv reads the three variables. If some are missing it returns
// an *[EnvError] that names them, and what the others hold, for a caller who
// knows the rest from elsewhere. It does not look at the region.
func CredentialsFromEnv() (Credentials, error) {
	var missing []string
	get := func(name string) string {
		v := strings.TrimSpace(os.Getenv(name))
		if v == "" {
			missing = append(missing, name)
		}
		return v
	}
	c := Credentials{ClientID: get(EnvClientID), ClientSecret: NewSecret(get(EnvClientSecret)), Region: get(EnvRegion)}
	if len(missing) > 0 {
		return c, &EnvError{Missing: missing}
	}
	return c, nil
}
