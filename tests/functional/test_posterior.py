import torch

from unirl.functional import candidate_priors, posterior


def test_accepted_candidates_share_the_prior_and_the_rest_is_shared_by_all_alternatives() -> None:
    accepted = torch.tensor([[True, True, False, False]])
    torch.testing.assert_close(candidate_priors(accepted, 0.6, 5), torch.tensor([[0.3, 0.3, 0.08, 0.08]]))
    crowded = torch.tensor([[True] + [False] * 8])
    torch.testing.assert_close(candidate_priors(crowded, 0.6, 5), torch.tensor([[0.6] + [0.05] * 8]))


def test_without_an_accepted_candidate_all_are_alike() -> None:
    mask = torch.tensor([[True, True, True, False]])
    priors = candidate_priors(torch.zeros_like(mask), 0.9, 5, mask)
    torch.testing.assert_close(priors, torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0.0]]))


def test_padding_has_no_part() -> None:
    """Padding repeats a candidate, so it would count twice."""
    accepted, mask = torch.tensor([[True, False, True, False]]), torch.tensor([[True, True, False, False]])
    log_likelihoods = torch.tensor([[0.2, 0.6, 0.2, 0.6]]).log()
    priors = candidate_priors(accepted, 0.5, 5, mask)
    torch.testing.assert_close(priors[:, :2], candidate_priors(accepted[:, :2], 0.5, 5))
    values = posterior(log_likelihoods, priors)
    torch.testing.assert_close(values[:, :2], posterior(log_likelihoods[:, :2], priors[:, :2]))
    assert values[0, 2:].tolist() == [0.0, 0.0]


def test_posterior_is_bayes_rule() -> None:
    generator = torch.Generator().manual_seed(0)
    likelihoods = torch.rand(5, 3, generator=generator)
    accepted = torch.rand(5, 3, generator=generator) < 0.5
    priors = candidate_priors(accepted, 0.5, 5)
    joint = likelihoods * priors
    torch.testing.assert_close(posterior(likelihoods.log(), priors), joint / joint.sum(1, keepdim=True))


def test_a_flat_likelihood_leaves_the_prior_and_a_sure_one_overrules_it() -> None:
    priors = candidate_priors(torch.tensor([[True, False]]), 0.5, 5)
    torch.testing.assert_close(posterior(torch.zeros(1, 2), priors), torch.tensor([[5 / 6, 1 / 6]]))
    assert posterior(torch.tensor([[-20.0, 0.0]]), priors)[0, 1] > 0.99
    assert posterior(torch.tensor([[-2000.0, 0.0]]), priors).tolist() == [[0.0, 1.0]]


def test_a_prior_of_one_allows_nothing_else() -> None:
    priors = candidate_priors(torch.tensor([[True, False]]), 1.0, 5)
    assert posterior(torch.tensor([[-50.0, 0.0]]), priors).tolist() == [[1.0, 0.0]]
