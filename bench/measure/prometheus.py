"""Counters and histograms of a daemon's admin port, in the text exposition format."""
import re
import urllib.request

SAMPLE = re.compile(r'^([A-Za-z_:]\w*)(?:\{(.*)\})? (\S+)$')
LE = re.compile(r'le="([^"]*)"')


def scrape(addresses):
    """Sums over all `addresses`: {name with labels: value}."""
    total = {}
    for address in addresses:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                match = SAMPLE.match(line)
                if match:
                    key = match[1] + (f"{{{match[2]}}}" if match[2] else "")
                    total[key] = total.get(key, 0.0) + float(match[3])
    return total


def quantiles_ms(before, after, name, wanted=(0.5, 0.99, 0.999)):
    """Quantiles of what histogram `name` (seconds) has counted between two scrapes, in ms; linear within a bucket. None for
    each when it counted nothing."""
    buckets = []
    for key, value in after.items():
        if key.startswith(name + "_bucket{"):
            buckets.append((float(LE.search(key)[1].replace("+Inf", "inf")), value - before.get(key, 0.0)))
    buckets.sort()
    total = buckets[-1][1] if buckets else 0
    return [_quantile(buckets, q * total) * 1e3 if total else None for q in wanted]


def _quantile(buckets, rank):
    low, below = 0.0, 0.0
    for high, seen in buckets:
        if seen >= rank and seen > below:
            return low if high == float("inf") else low + (high - low) * (rank - below) / (seen - below)
        low, below = high, seen
    return low
