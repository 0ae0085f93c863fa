package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/keys"
)

func (p *process) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make keys for callers and operators of the gateway",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.newKeyCommand())
	return cmd
}

func (p *process) newKeyCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Make a key: the key to standard output, the line for the file to standard error",
		Long: `new makes a key with 256 random bits for a caller or an operator of the gateway.
Standard output gets the key and nothing else; it is shown this once and stored
nowhere. Standard error gets the line for the gateway's file, which holds the key's
hash: from it nobody finds the key. See docs/gateway-config.md.`,
		Example: `  headgate key new --name crm
  headgate key new --name crm >crm.key    the line for the file stays on the terminal`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := config.CheckPerson(name); err != nil {
				return usage("--name %q: %w", name, err)
			}
			key, hash := keys.New()
			fmt.Fprintf(p.stderr, "The line for the file, below callers of an org or below operators:\n\n  %s: {key: %q}\n\nThe key, for whoever is to have it. It is not shown again:\n\n", name, hash)
			_, err := fmt.Fprintln(p.stdout, key)
			return err
		},
	}
	cmd.Flags().StringVar(&name, "name", "NAME", "the `NAME` of the caller or operator, for the line of the file")
	return cmd
}
