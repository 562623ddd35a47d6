"""Generates a usage export of DeepSeek in the layout of real ones, for the demo and tests."""

import csv
import io
import random
import zipfile
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

# US dollars per token: cache hit, cache miss, output; twice the price in peak hours
# (api-docs.deepseek.com/quick_start/pricing, read in 2026-11).
PRICES = {
    "deepseek-v4-pro": ("0.000000022", "0.00000066", "0.00000198"),
    "deepseek-v4-flash": ("0.000000003", "0.00000015", "0.0000006"),
}
KINDS = ("input_cache_hit_tokens", "input_cache_miss_tokens", "output_tokens")
USER = "8ff3052b-0000-4000-8000-000000000000"
GRANTED_DAY_SHARE = 0.3


class Billed(NamedTuple):
    """Totals of an export by wallet."""

    paid: Decimal
    granted: Decimal


def write_deepseek_export(path: Path, *, seed: int, first_day: date, days: int) -> Billed:
    """Write the ZIP of some days; return the totals of both wallets."""
    rng = random.Random(f"deepseek-export/{seed}/{first_day}/{days}")
    amounts = [["user_id", "utc_date", "model", "api_key_name", "api_key", "type", "price", "amount"]]
    costs = [["user_id", "utc_date", "model", "wallet_type", "cost", "currency"]]
    totals = {"Paid": Decimal(0), "granted": Decimal(0)}
    for day in (first_day + timedelta(days=n) for n in range(days)):
        for model, prices in PRICES.items():
            spent = Decimal(0)
            for name in ("search", "support"):
                for busy in (1, 2):
                    for kind, price in zip(KINDS, prices, strict=True):
                        tokens, paid = rng.randrange(1_000, 900_000), Decimal(price) * busy
                        spent += tokens * paid
                        amounts.append([USER, str(day), model, name, "sk-b6d90***52b1", kind, f"{paid:f}", str(tokens)])
                requests = str(rng.randrange(5, 200))
                amounts.append([USER, str(day), model, name, "sk-b6d90***52b1", "request_count", "", requests])
            wallet = "granted" if rng.random() < GRANTED_DAY_SHARE else "Paid"
            totals[wallet] += spent
            costs.append([USER, str(day), model, wallet, f"{spent:.16f}", "USD"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for kind_of_file, rows in (("amount", amounts), ("cost", costs)):
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(rows)
            archive.writestr(f"{kind_of_file}-{first_day.year}-{first_day.month}.csv", text.getvalue())
    return Billed(totals["Paid"], totals["granted"])
