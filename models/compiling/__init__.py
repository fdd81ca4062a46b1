"""From nets to plans: export, compilers, the cache of what they made, and builds in processes of their own."""
