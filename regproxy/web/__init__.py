"""HTTP plumbing shared by all sites: limits, header rules, the body sender."""
