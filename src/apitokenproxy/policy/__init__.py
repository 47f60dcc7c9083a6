"""Whether a caller may: declarative rules, and any other engine behind `PolicyEngine`."""
