package genesys_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/genesys"
)

func Example() {
	// An emulator stands for the platform. Without APIURL and LoginURL, the
	// region of the credentials says where it is.
	platform, err := emulator.New(emulator.Config{})
	if err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(platform.API())
	defer server.Close()

	org, err := genesys.Connect(genesys.Config{
		Credentials: genesys.Credentials{
			ClientID:     emulator.DefaultClientID,
			ClientSecret: genesys.NewSecret(emulator.DefaultClientSecret),
		},
		APIURL:   server.URL,
		LoginURL: server.URL,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer org.Close()

	res, err := org.Flows().Execute(context.Background(), "welcome", map[string]string{"caller": "+33100000000"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Status, res.Tries.Sent)
	// Output: 200 1
}

func ExampleConnect_fromEnv() {
	creds, err := genesys.CredentialsFromEnv()
	if err != nil {
		log.Print(err) // names the variables that are missing
		return
	}
	org, err := genesys.Connect(genesys.Config{Credentials: creds})
	if err != nil {
		log.Print(err)
		return
	}
	defer org.Close()

	ctx := context.Background()
	if err := org.Login(ctx); err != nil {
		log.Print(err) // says what to check if the credentials were rejected
		return
	}
	org, err = org.WithOwnLimits(ctx)
	if err != nil {
		log.Print(err) // the published limits hold
	}
	_, _ = org.Flows().Execute(ctx, "9f1c2b7e-0000-4000-8000-000000000001", nil)
}

func ExampleFlows_Execute() {
	var flows *genesys.Flows // = org.Flows()
	execute := func(ctx context.Context, flowID string) {
		res, err := flows.Execute(ctx, flowID, map[string]int{"customer": 42})
		if unknown, ok := errors.AsType[*headgate.UnknownError](err); ok {
			log.Printf("may have run: %v", unknown)
		} else if refused, ok := errors.AsType[*genesys.APIError](err); ok {
			log.Printf("will not run: %v", refused)
		} else if err != nil {
			log.Printf("was not sent: %v", err)
		} else if res.Tries.Unanswered > 0 {
			log.Printf("ran, perhaps more than once: %s", res.Output)
		}
	}
	_ = execute
}

func ExampleLookupRegion() {
	region, err := genesys.LookupRegion("eu-west-1")
	fmt.Println(region.APIURL(), err)

	_, err = genesys.LookupRegion("Europe/Paris")
	if e, ok := errors.AsType[*genesys.RegionError](err); ok {
		for _, near := range e.Near {
			fmt.Println(near)
		}
	}
	// Output:
	// https://api.mypurecloud.ie <nil>
	// eu-west-1 (mypurecloud.ie)
	// eu-west-2 (euw2.pure.cloud)
	// eu-central-1 (mypurecloud.de)
	// eu-central-2 (euc2.pure.cloud)
	// eusc-de-east-1 (edee1.eusc-pure.cloud)
}

// A token source on its own: any transport can use it.
func ExampleTokenSource() {
	tokens, err := genesys.NewTokenSource(genesys.TokenConfig{
		ClientID:     "client",
		ClientSecret: genesys.NewSecret("from a safe place"),
		LoginURL:     "https://login.mypurecloud.ie",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer tokens.Close()
	client := &http.Client{Transport: &headgate.Transport{
		Auth:   tokens,
		Limits: genesys.Limits(),
		Read:   genesys.ReadAnswer,
	}}
	_ = client
}
