"""The networks of runs in every form that could be shipped: what each scores, takes and weighs."""
