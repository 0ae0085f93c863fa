// Package genesys speaks to the Genesys Cloud platform API through headgate:
// its regions, its limits and the form of its 429, its login, and the execution
// of flows.
//
//	creds, err := genesys.CredentialsFromEnv()
//	if err != nil {
//		log.Fatal(err)
//	}
//	org, err := genesys.Connect(genesys.Config{Credentials: creds})
//	if err != nil {
//		log.Fatal(err)
//	}
//	defer org.Close()
//	res, err := org.Flows().Execute(ctx, flowID, payload)
//
// [Connect] puts the parts together. Each can be used on its own: a
// [TokenSource] is the Auth of any [headgate.Transport], [ReadAnswer] its Read,
// and [Limits] are the limits of a [headgate.Limiter].
//
// Whatever is sent takes a permit first: calls, retries, logins, status polls
// and the question for the org's own limits.
package genesys
