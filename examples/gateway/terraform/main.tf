# The provider's calls go through a headgate gateway. The client id and secret are
# the name and the key of a caller:
#
#   export GENESYSCLOUD_OAUTHCLIENT_ID=terraform
#   export GENESYSCLOUD_OAUTHCLIENT_SECRET=…      # headgate key new --name terraform
#   export GENESYSCLOUD_REGION=eu-west-1          # asked for, and not used

terraform {
  required_providers {
    genesyscloud = {
      source = "mypurecloud/genesyscloud"
    }
  }
}

provider "genesyscloud" {
  gateway {
    protocol = "http"
    host     = "127.0.0.1"
    port     = "8080"

    # For an org of several, by its path:
    # path_params {
    #   path_name  = "login"
    #   path_value = "acme"
    # }
    # path_params {
    #   path_name  = "api"
    #   path_value = "acme"
    # }
  }
}

data "genesyscloud_auth_division_home" "home" {}
