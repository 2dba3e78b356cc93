"""The words of the page, each explained once."""

from collections.abc import Collection

from interp.report.blocks import Section
from interp.report.markup import element, prose, term_anchor

TERMS = {
    "ablation": (
        "Replacing what a component puts out by something that says nothing about the text (zero, its mean over texts, or what it puts "
        "out on another one), and seeing what the model loses."
    ),
    "attention": (
        "The part of a layer that moves information between tokens: each token looks at itself and the ones before it, "
        "weighs them, and adds a mixture of what they hold to its own stream."
    ),
    "attention head": (
        "One of the parts that attention is made of. Each looks at tokens in its own way, by its own [[attention pattern]]; "
        "L5H3 is head 3 of layer 5, both counted from 0. Several heads can share the keys and values that they read."
    ),
    "attention pattern": (
        "For one [[attention head]]: how much each token (the query) reads from itself and each token before it (the keys). "
        "The weights of a query add up to 1."
    ),
    "attention sink": (
        "A token, most often the first, on which heads put the weight that they have no other use for. Little is read from it: "
        "its values are short (Xiao et al., 2023)."
    ),
    "ALiBi": (
        "A penalty on the score of a query against a key that grows with the tokens between them, at a rate of each "
        "[[attention head]]'s own (Press et al., 2022)."
    ),
    "attribution patching": (
        "[[Patching]] estimated from the gradient of the metric: what a patch would change is the change of the state times the gradient "
        "there, for all states from two runs and one backward pass (Nanda, 2023). Where the metric is not straight it is off."
    ),
    "causal mask": (
        "What hides from each token those that come after it, so that a text can be written one token at a time."
    ),
    "clean run": "The model run on the prompt as it is.",
    "composition": (
        "How much of what one [[attention head]] writes a later one reads with its queries, keys or values (Elhage et al., 2021): "
        "the norm of the product of their matrices over the product of the norms. Matrices that know nothing of each other give "
        "about one over the root of the stream's width, not zero."
    ),
    "corrupted run": (
        "The model run on a prompt whose subject is garbled, by noise added to the [[embeddings|embedding]] of its tokens or by other "
        "words in its place, so that the answer is lost (Meng et al., 2022)."
    ),
    "cosine": (
        "The cosine of the angle between two vectors: 1 if they point the same way, 0 if they are at right angles, "
        "-1 if they are opposed. In a space of hundreds of dimensions, unrelated vectors have a cosine near 0."
    ),
    "decoding": (
        "Choosing tokens one after another from the model's distributions: the likeliest each time ([[greedy|greedy decoding]]), or "
        "drawn at random, after a [[temperature]] and filters such as [[top-k]] and [[top-p]]."
    ),
    "denoising": (
        "[[Patching]] a state of the clean run into the run on the corrupted prompt: does it bring the answer back? It finds states that "
        "are enough by themselves. The other way round is [[noising]]."
    ),
    "drift": (
        "How far edits have moved a matrix from what it was: |dW| / |W|, in Frobenius norms, of all edits together. A model whose weights "
        "have drifted far forgets and repeats itself."
    ),
    "direct logit attribution": (
        "The [[logit]] of one token split into what each component wrote to the [[residual stream]], with the final norm's "
        "divisor held at its value in this run. It counts direct effects only: what a component does through later layers "
        "is credited to those."
    ),
    "efficacy": (
        "Whether an edit does what it was made for: how often the target is likelier than the old answer at the edited prompt itself "
        "(Meng et al., 2022)."
    ),
    "entropy": (
        "How undecided a distribution is, in nats: 0 when one token has all the probability, "
        "about 10.8 when 49,152 tokens share it alike."
    ),
    "essence": (
        'What the model takes a subject to be, read off its prediction in "{subject} is a". An edit should change a fact about the '
        "subject and leave this (Meng et al., 2022)."
    ),
    "expert": (
        "One of several [[MLPs|MLP]] of a layer, of which each token passes only the few that a small map, the router, chooses for it "
        "(Shazeer et al., 2017)."
    ),
    "final norm": (
        "The norm after the last layer: it divides the stream by its own size (the root of its mean square, or its standard deviation) and "
        "multiplies each dimension by a learned weight. What is unembedded has about the same length for every token."
    ),
    "generalisation": (
        "Whether an edit holds in other words: how often the target is likelier than the old answer at a [[paraphrase]] of the edited "
        "prompt (Meng et al., 2022, the paraphrase score)."
    ),
    "greedy decoding": "Taking the likeliest token each time. The same prompt then always gives the same text.",
    "grouped-query attention": (
        "Several query heads share one key/value head (Ainslie et al., 2023), so that the [[KV cache]] is smaller by as much; with one "
        "for all it is multi-query attention (Shazeer, 2019), with one for each it is multi-head attention."
    ),
    "indirect effect": (
        "What one state brings back of the answer: its probability in a [[corrupted run]] with that state [[restored]], less that in the "
        "same corrupted run without (Meng et al., 2022)."
    ),
    "integrated gradients": (
        "The gradient averaged over points between two runs instead of taken at one of them (Sundararajan et al., 2017): less wrong where "
        "the metric is not straight."
    ),
    "induction head": (
        "A head that finds where the current token stood before, attends to the token that came next then, and raises its [[logit]] "
        "(Elhage et al., 2021; Olsson et al., 2022)."
    ),
    "paraphrase": "In the evaluation of an edit, a prompt that asks for the edited fact in other words.",
    "path patching": (
        "[[Patching]] what one head puts out, but only on its way to one later head or to the [[logits|logit]] (Wang et al., 2022): what "
        "is told directly, without what others make of it."
    ),
    "patching": (
        "Running the model with one internal state replaced by the one that it has on another prompt, and seeing what becomes of the "
        "answer: what the state holds, and the answer depends on, comes with it (activation patching; Wang et al., 2022)."
    ),
    "prefix matching": (
        "How much of a head's attention goes to the tokens that followed earlier occurrences of the current one, as a share of "
        "what does not rest on the first token. 1 is a perfect induction head."
    ),
    "stripe score": (
        "On text that repeats a block, the mean attention from each repeated token to the one after its last occurrence: a "
        "stripe parallel to the diagonal of the [[attention pattern]]."
    ),
    "KL divergence": (
        "How much one distribution differs from another, in nats. Here KL(final ‖ lens): what is lost by using the lens's "
        "distribution in place of the model's own. 0 means they are the same."
    ),
    "key": (
        "What goes into the output matrix of an [[MLP]] at a token: which of its hidden units are on. The matrix, seen as a memory, maps "
        "keys to [[values|value]]; an edit changes what the key of the subject's last token maps to (Meng et al., 2022)."
    ),
    "KV cache": (
        "The keys and values of the tokens read so far, kept so that they need not be computed again: 2 x layers x key/value heads x head "
        "size x bytes of a number x tokens. [[Grouped-query attention]] makes it smaller; layers with a sliding window keep only what "
        "the next token can still see."
    ),
    "layer": "One block of the model: attention and an [[MLP]], each adding its result to the [[residual stream]].",
    "log-probability": "The natural logarithm of a probability, in nats: 0 is certain, -2.3 is one in ten, -6.9 is one in a thousand.",
    "logit": "The score the model gives a token before the [[softmax]]. Adding the same number to all logits changes nothing.",
    "logit lens": (
        "Reading an intermediate [[residual stream]] as if it were the last one, through the final norm and the [[unembedding]] "
        "(nostalgebraist, 2020). Early layers do not yet speak this language, so their words are to be taken with care."
    ),
    "loss": "How badly a text is foretold: the mean of -ln p over its tokens, p being the probability each had, in nats a token.",
    "MEMIT": (
        "An edit of many facts at once, spread over several layers, each of which takes its share of what is still missing "
        "(Meng et al., 2023). Each layer's change is the least-squares answer to old [[keys|key]] and new ones."
    ),
    "MLP": "The part of a layer that computes within one token: a wide hidden layer whose result is added to the stream.",
    "neighbour": (
        "In the evaluation of an edit, a prompt about another subject whose answer the edit should leave as it is."
    ),
    "norm": "The length of a vector: the square root of the sum of its squares.",
    "perplexity": (
        "The exponential of the mean [[loss]] of a text: a model as unsure as if it chose among so many equally likely tokens each time. "
        "It compares only between models with the same tokens."
    ),
    "prefill": "The forward that reads the whole prompt at once and fills the [[KV cache]]; decoding then reads one token at a time.",
    "noising": (
        "[[Patching]] a state of the corrupted run into the run on the clean prompt: does it take the answer away? It finds states that "
        "the answer needs. The other way round is [[denoising]]."
    ),
    "normalised effect": (
        "What a patch changes as a share of what changing the whole prompt changes. [[Denoising]]: patched less corrupted, over clean "
        "less corrupted; [[noising]]: clean less patched, over the same. 0 is no effect, 1 all of it."
    ),
    "null": (
        "What a measure comes to when what it looks for is taken away: weights dealt out at random, or the same places in shuffled "
        "text. A value says something only beside it."
    ),
    "null space": (
        "The directions that ordinary [[keys|key]] do not use. AlphaEdit writes only along these, so that a change meets no other key "
        "(Fang et al., 2025)."
    ),
    "OV circuit": (
        "What an [[attention head]] writes where it looks: the matrix W_V W_O, from the stream to the stream. The [[QK circuit]] "
        "decides where it looks."
    ),
    "QK circuit": (
        "Where an [[attention head]] looks: the matrix W_Q W_Kᵀ that scores a query against a key. In models that rotate queries "
        "and keys by their positions it depends on the distance between them."
    ),
    "position embedding": (
        "A learned vector for each place in the text, added to the [[embedding]] of the token that stands there."
    ),
    "RoPE": (
        "Rotary position embedding: queries and keys are turned, two coordinates at a time, by angles that grow with their position, so "
        "that their product depends on how far apart they are (Su et al., 2021)."
    ),
    "query, key and value": (
        "Three vectors that each [[attention head]] makes of a token: the query is what the token looks for, the key what it is found by, "
        "the value what is read from it. The [[attention pattern]] is the [[softmax]] of queries times keys."
    ),
    "rank-one edit": (
        "A change of one matrix by the product of a column and a row: W becomes W + u vᵀ. The row says which [[key]] is met, the column "
        "what is then written (Meng et al., 2022, ROME). Several of them make an edit of low rank."
    ),
    "rank": "The place of a token when all tokens are sorted by probability. 0 is the top.",
    "restored": (
        "Put back, in a [[corrupted run]], to the value that it has in the [[clean run]]; everything after it is computed anew."
    ),
    "residual stream": (
        "The vector that each token carries from layer to layer. It starts as the [[embedding]]; attention and MLPs read it and "
        "add to it, and at the end it is turned into [[logits|logit]]."
    ),
    "embedding": "The vector that stands for a token at the start: one row of a learned table, chosen by the token's id.",
    "second moment": (
        "The mean of k kᵀ over the [[keys|key]] k that an [[MLP]] meets in ordinary text. It says which directions are in use, so that an "
        "edit can keep off them (Meng et al., 2022: C)."
    ),
    "severed": (
        "While a state of the [[residual stream]] is [[restored]], the later [[MLPs|MLP]] (or [[attention]]) of the same token are held "
        "at what they put out in the [[corrupted run]]. What is then missing came back through them (Meng et al., 2022)."
    ),
    "sliding window": (
        "A mask under which a token sees only so many tokens back. What lies further away can reach it through the layers before."
    ),
    "specificity": (
        "Whether an edit leaves everything else: how often the old answer stays likelier than the target at [[neighbours|neighbour]] "
        "(Meng et al., 2022, the neighbourhood score)."
    ),
    "softmax": "Turns logits into probabilities: each is exp(logit), divided by the sum over all tokens.",
    "softcap": "A smooth bound that some families put on their logits: cap x tanh(logit / cap) stays within ± cap.",
    "temperature": (
        "What logits are divided by before the [[softmax]]. Below 1 likely tokens gain, towards [[greedy|greedy decoding]] at 0; above 1 "
        "unlikely ones do; 1 is the model's own distribution."
    ),
    "token": "A piece of text with a number, its id. Models read and write tokens; a common word is one, a rare one several.",
    "top-k": "Drawing from the k likeliest tokens only (Fan et al., 2018); their probabilities are scaled up to sum to 1.",
    "top-p": (
        "Drawing from the smallest set of likeliest tokens that together have probability p or more (nucleus sampling; Holtzman et al., "
        "2020): few tokens where the model is sure, many where it is not."
    ),
    "total effect": "What corrupting the subject costs: the answer's probability in the [[clean run]], less that in the [[corrupted run]].",
    "tuned lens": (
        "A [[logit lens]] with a learned affine map for each layer, fitted so that reading that layer predicts the model's "
        "own output (Belrose et al., 2023)."
    ),
    "value": (
        "What comes out of the output matrix of an [[MLP]] at a token, and is added to the [[residual stream]]: what the memory says for a "
        "[[key]] (Meng et al., 2022)."
    ),
    "unembedding": (
        "The matrix that turns the [[residual stream]] after the final norm into one [[logit]] for each token of the "
        "vocabulary."
    ),
}
_LEAD = "The words used on this page."


def build(used: Collection[str]) -> Section:
    """The entries for the terms that the page links, and for the terms those entries link."""
    by_name = {term.lower(): term for term in TERMS}
    entries = []
    for name in sorted(by_name):
        if name in used:
            term = by_name[name]
            entries += [element("dt", term, id=term_anchor(term)), element("dd", prose(TERMS[term]))]
    return Section(
        name="glossary", title="Glossary", label="Glossary", lead=_LEAD, place=100, blocks=(element("dl", *entries),)
    )
