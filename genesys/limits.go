package genesys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/headgate/headgate"
)

// The names of the limits in the namespace platform.api, as a 429 and the
// limits API give them, and LimitLogin, which is our own name.
const (
	// LimitToken counts the requests of one client-credentials token.
	LimitToken = "client.credentials.token.rate.per.minute"
	// LimitAnyToken counts the requests of one token of any kind.
	LimitAnyToken = "token.rate.per.minute"
	// LimitOrgUser counts the requests of one org, client and user.
	LimitOrgUser = "org.app.user.rate.per.minute"
	// LimitLogin counts the logins of one client.
	LimitLogin = "login"
)

// The published defaults, in requests a minute.
const (
	TokenPerMinute   = 300
	OrgUserPerMinute = 3000
)

const (
	apiMatch   = "/api/"
	loginMatch = "/oauth/token"
	limitsPath = "/api/v2/organizations/limits/namespaces/platform.api"
)

// Limits returns the limits that the platform publishes as its defaults, for a
// client that logs in with client credentials:
//
//   - [LimitToken], 300 a minute for each token
//   - [LimitOrgUser], 3000 a minute for each client
//   - [LimitLogin], see [LoginLimit]
//
// Each is told as a window of a minute, which keeps to it however the platform
// counts, and is learned from there: that it is a token bucket shows in the first
// refusal. The platform has a second limit of 300 for each token,
// [LimitAnyToken]. Both count the same requests, so that only the smaller of
// them can ever refuse, and one bucket stands for the two: [ReadAnswer] says so
// of a 429 that names either.
func Limits() []headgate.Limit {
	return []headgate.Limit{perMinute(LimitToken, headgate.PerToken, TokenPerMinute), perMinute(LimitOrgUser, headgate.PerClient, OrgUserPerMinute), LoginLimit()}
}

// TokenLimit returns the limit for each token, with a rate in requests a second
// and a burst, for an org of which it is known that its limit is a token bucket
// of this size. With neither (0, 0) nothing is told of it, and it is learned. It
// counts the calls of the API, not the logins.
func TokenLimit(rate, burst float64) headgate.Limit {
	return headgate.Limit{Name: LimitToken, Per: headgate.PerToken, Match: apiMatch, Rate: rate, Burst: burst}
}

// LoginLimit returns the limit for logins: 1 a second and a burst of 5 for each
// client. The platform has one and does not publish it. This one is a guess
// that an application does not notice, since it logs in a few times a day, and
// that keeps one that has lost its way from hammering the login host.
func LoginLimit() headgate.Limit {
	return headgate.Limit{Name: LimitLogin, Per: headgate.PerClient, Match: loginMatch, Rate: 1, Burst: 5, Learn: headgate.LearnOff}
}

func perMinute(name string, per headgate.Per, n float64) headgate.Limit {
	l := headgate.PerTime(n, time.Minute)
	l.Name, l.Per, l.Match = name, per, apiMatch
	return l
}

// FetchLimits asks the API at apiURL for the org's own limits. It needs no
// permission, but a token: rt is a [headgate.Transport] with Auth, so that the
// question pays a permit as everything does.
//
// The token's limit is the smaller of [LimitToken] and [LimitAnyToken]. A limit
// that the answer does not mention keeps its published default, and keys that
// are not in [Limits] are left alone. If the question fails, FetchLimits
// returns the published defaults beside the error.
func FetchLimits(ctx context.Context, rt http.RoundTripper, apiURL string) ([]headgate.Limit, error) {
	limits, err := fetchLimits(ctx, rt, apiURL)
	if err != nil {
		return Limits(), fmt.Errorf("reading the org's limits: %w", err)
	}
	return limits, nil
}

func fetchLimits(ctx context.Context, rt http.RoundTripper, apiURL string) ([]headgate.Limit, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(apiURL, "/")+limitsPath, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body, err := readAll(resp)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, ErrorOf(resp, body)
	}
	return parseLimits(body)
}

// parseLimits reads the answer of the limits API.
func parseLimits(body []byte) ([]headgate.Limit, error) {
	var answer struct {
		Entities []struct {
			Key       string  `json:"key"`
			Namespace string  `json:"namespace"`
			Value     float64 `json:"value"`
		} `json:"entities"`
	}
	if err := unmarshal(body, &answer); err != nil {
		return nil, err
	}
	if answer.Entities == nil {
		return nil, errors.New("the answer has no entities")
	}
	smallest := map[string]float64{}
	for _, e := range answer.Entities {
		if e.Value < 1 || e.Namespace != "" && e.Namespace != "platform.api" {
			continue
		}
		if e.Key == LimitAnyToken {
			e.Key = LimitToken
		}
		if v, ok := smallest[e.Key]; !ok || e.Value < v {
			smallest[e.Key] = e.Value
		}
	}
	limits := Limits()
	for i, l := range limits {
		if n, ok := smallest[l.Name]; ok && l.Name != LimitLogin {
			limits[i] = perMinute(l.Name, l.Per, n)
		}
	}
	return limits, nil
}

// unmarshal reads JSON and forgives fields of another type than expected: they
// stay zero.
func unmarshal(body []byte, into any) error {
	err := json.Unmarshal(body, into)
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return nil
	}
	return err
}
